#!/usr/bin/env bash
# Every backbone, way of fitting and baseline on the same slices, masks, maps and scores.
# Brain and knee run side by side, one thread each. Resumable: what is done is not done again.
#
#   experiments/main_table/run.sh SCALE OUT
#
# DATA     folder with brain/ and knee/ in the fastMRI format; default: simulated into OUT/data
# TEST     folder whose multicoil_val is reconstructed, with brain/ and knee/; default: DATA
# STARTS   folder of warm starts; default: OUT/warm_start, trained on DATA's auxiliary subjects
# ITERATIONS  of per-scan fits; default: the scale's
# BRAIN, KNEE   overrides of their own, such as data.max_slices=2
# METHODS  which parts: classical trained lora regularised all inr
# BASELINES  which classical ones, such as zero_filled,tv: grappa needs several coils
set -euo pipefail
SCALE=${1:?scale} OUT=${2:?output folder}
TEST=${TEST:-${DATA:-$OUT/data}} DATA=${DATA:-$OUT/data} STARTS=${STARTS:-$OUT/warm_start}
METHODS=${METHODS-classical trained lora regularised all inr}
export OMP_NUM_THREADS=1 BRAIN=${BRAIN:-data.max_slices=2} KNEE=${KNEE:-data.max_slices=3}
LINES_=mask.calibration_lines=16  # the paper's 24 of 368, as a share of the demo's 208

simulate() {
  [ -d "$DATA" ] || mrisem simulate scale="$SCALE" output_dir="$DATA"
}

train() {  # anatomy
  for model in unet unrolled varnet; do
    local folder=$STARTS/$1/$model
    [ -f "$folder/done" ] && continue
    mrisem train data="$1" data.root="$DATA/$1" scale="$SCALE" model=$model $LINES_ \
      data.train_subjects=auxiliary "mask.acceleration=[4,8]" \
      scale.train.epochs="$([ "$1" = brain ] && echo "${EPOCHS:-6}" || echo $((${EPOCHS:-6} * 3 / 2)))" \
      output_dir="$folder"
    touch "$folder/done"
  done
}

sweep() {  # anatomy overrides...: both accelerations
  local anatomy=$1 own; shift
  own=$([ "$anatomy" = brain ] && echo "$BRAIN" || echo "$KNEE")
  mrisem reconstruct --multirun data="$anatomy" data.root="$TEST/$anatomy" $own \
    auxiliary.root="$DATA/$anatomy" scale="$SCALE" mask.acceleration=4,8 $LINES_ \
    output_dir="$OUT/runs" ${ITERATIONS:+scale.fit.iterations=$ITERATIONS} "$@"
}

reconstruct() {  # anatomy
  local start=model.checkpoint=$STARTS/$1/'${model.name}'/checkpoints/last.ckpt
  local prior=prior=none,image_same  # at the paper's weight
  local balanced="prior=image_same prior.balance=0.1"
  for part in $METHODS; do case $part in
    classical) sweep "$1" model="${BASELINES:-zero_filled,cg_sense,grappa,tv,l1_wavelet}" ;;
    trained) sweep "$1" model=unet,unrolled,varnet fit=none "$start" ;;
    lora)
      sweep "$1" model=unet,unrolled,varnet fit=lora "$start" $prior
      sweep "$1" model=unet,unrolled fit=lora "$start" $balanced ;;
    regularised) sweep "$1" model=unrolled fit=lora "$start" regulariser=tv,l1_wavelet ;;
    all) sweep "$1" model=unrolled fit=all "$start" ;;
    inr) sweep "$1" model=inr $prior ;;
  esac; done
}

side_by_side() {  # function
  "$1" brain & local brain=$!
  "$1" knee & local knee=$!
  wait $brain; wait $knee
}

echo "== data"; simulate
[ -z "${SKIP_TRAINING:-}" ] && { echo "== warm starts"; side_by_side train; }
[ -n "$METHODS" ] || exit 0
echo "== reconstructions"; side_by_side reconstruct
echo "== scores"
mrisem evaluate output_dir="$OUT/runs"
mrisem report "runs=[$OUT/runs]" output_dir="$OUT"
python "$(dirname "$0")/order.py" "$OUT/runs/metrics.csv" | tee "$OUT/order.txt"
