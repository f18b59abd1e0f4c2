#!/usr/bin/env bash
# Is the prior's gradient worth having? Per-scan fits from the shipped warm start, with and without
# the prior, on held-out subjects. Brain and knee side by side, one thread each; resumable.
#
#   experiments/prior_worth/run.sh [OUT]
#
# DATA      brain/ and knee/ in the fastMRI format; default: simulated into OUT/data
# TEST      folder whose multicoil_val is reconstructed; default: DATA
# ENCODERS  checkpoint folders of training recipes, or janus_mini
# VARIANTS  which of the ablations below: default balance negatives bank jitter late null
# BRAIN, KNEE  overrides of their own, such as data.max_slices=1
set -euo pipefail
OUT=${1:-outputs/prior_worth}
DATA=${DATA:-outputs/demo/data} TEST=${TEST:-${DATA}}
ENCODERS=${ENCODERS:-janus_mini} VARIANTS=${VARIANTS-default}
BRAIN=${BRAIN:-data.max_slices=1} KNEE=${KNEE:-data.max_slices=2}
HERE=$(dirname "$0")
export OMP_NUM_THREADS=1

sweep() {  # anatomy variant overrides...
  local anatomy=$1 variant=$2 own; shift 2
  own=$([ "$anatomy" = brain ] && echo "$BRAIN" || echo "$KNEE")
  mrisem reconstruct --multirun data="$anatomy" data.root="$TEST/$anatomy" $own \
    auxiliary.root="$DATA/$anatomy" scale=demo mask.acceleration="${R:-4,8}" model=unrolled \
    model.checkpoint=unrolled_mini ${FIT:-} output_dir="$OUT/$variant" "$@"
}

reconstruct() {  # anatomy
  sweep "$1" none/none
  sweep "$1" trained/none fit=none
  local encoder name prior
  for encoder in $ENCODERS; do
    name=$(basename "$(dirname "$encoder/x")"); [ "$name" = janus_mini ] && [ "$encoder" != janus_mini ] \
      && name=$(basename "$(dirname "$encoder")")
    prior="prior=image_same encoder.path=$encoder"
    for variant in $VARIANTS; do case $variant in
      default) sweep "$1" "balance_0.1/$name" $prior prior.balance=0.1 ;;
      balance) for b in ${BALANCES:-0.03 0.1 0.3 1}; do sweep "$1" "balance_$b/$name" $prior prior.balance=$b; done ;;
      negatives) for n in reconstruction both; do
          sweep "$1" "negatives_$n/$name" $prior prior.balance=0.1 auxiliary.negatives=$n; done ;;
      bank) sweep "$1" "bank_mixed/$name" $prior prior.balance=0.1 prior.contrast=mixed ;;
      jitter) sweep "$1" "jitter/$name" $prior prior.balance=0.1 'prior.jitter={copies: 4, max_shift: 4, noise: 0.01}' ;;
      late) sweep "$1" "late/$name" $prior prior.balance=0.1 prior.start_iteration=8 ;;
      null) sweep "$1" "null/$name" $prior prior.balance=0.1 prior.unmeasured_only=true ;;
    esac; done
  done
}

[ -d "$DATA" ] || mrisem simulate scale=demo output_dir="$DATA"
reconstruct brain & brain=$!
reconstruct knee & knee=$!
wait $brain; wait $knee
mrisem evaluate output_dir="$OUT"
python "$HERE/worth.py" "$OUT" | tee "$OUT/worth.txt"
