#!/usr/bin/env bash
# A small Janus of the kind that ships: material, training, checkpoint, answers. Resumable.
#
#   experiments/pretrain_janus_mini/run.sh [OUT]
#
# The material are reconstructions of simulated subjects that nothing else uses; brain and knee
# are made side by side, one thread each.
set -euo pipefail
OUT=${1:-outputs/pretrain_janus_mini} HERE=$(dirname "$0")
read -ra ANATOMIES <<<"${ANATOMIES:-brain knee}"  # ANATOMIES=brain: a model of brains alone

simulate() {  # overrides...
  mrisem simulate seed=3141 scale=demo n_val=12 "anatomies=[$(IFS=,; echo "${ANATOMIES[*]}")]" "$@"
}

reconstruct() {  # anatomy kind overrides...
  OMP_NUM_THREADS=1 mrisem reconstruct --multirun data="$1" data.root="$OUT/simulated/$1" \
    scale=demo mask.acceleration="[2,3,4,6,8,10]" output_dir="$OUT/material/$2" "${@:3}"
}

make_material() {  # anatomy
  local gaussian="mask=gaussian mask.calibration_lines=16" one=data.max_slices=1
  local network="model=unrolled model.checkpoint=unrolled_mini"
  reconstruct "$1" reconstruction $network fit=none $gaussian seed=0,1
  reconstruct "$1" reconstruction $network fit=none mask=equispaced,random
  reconstruct "$1" reconstruction $network fit=all fit.iterations=4,12 $gaussian $one
  reconstruct "$1" reconstruction model=cg_sense +model.task.method.iterations=3,20 $gaussian
  reconstruct "$1" reconstruction model=tv +model.task.method.iterations=10 $gaussian $one
  reconstruct "$1" aliasing model=zero_filled $gaussian
  reconstruct "$1" aliasing model=zero_filled mask=equispaced
}

echo "== material"
simulate n_train=6 output_dir="$OUT/simulated"
simulate n_train=0 output_dir="$OUT/noise_free" snr_factor=inf  # the same subjects, to judge by
makers=()
for anatomy in "${ANATOMIES[@]}"; do make_material "$anatomy" & makers+=($!); done
for maker in "${makers[@]}"; do wait "$maker"; done

echo "== training"
python "$HERE/train.py" --output "$OUT" --anatomies "${ANATOMIES[@]}"
