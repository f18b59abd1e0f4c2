#!/usr/bin/env bash
# What reconstruction methods make of simulated subjects that nothing else uses: the hard part of
# the training material. Resumable; brain and knee side by side, one thread each.
#
#   experiments/pretrain_janus_mini/material.sh [OUT] [ROUND]
#
# ROUND 1: zero-filled, CG-SENSE and TV stopped early, the unrolled network as trained and fitted.
# ROUND 2: fitted under the prior of ENCODER (default: OUT/janus_mini), strongly: what it let pass.
# SCALE    demo, or smoke for the test
set -euo pipefail
OUT=${1:-outputs/pretrain_janus_mini} ROUND=${2:-1} SCALE=${SCALE:-demo}
START=${START:-unrolled_mini}
SUBJECTS=${SUBJECTS:-12}
export OMP_NUM_THREADS=1

simulate() {  # overrides...
  mrisem simulate seed=3141 scale="$SCALE" n_val="$SUBJECTS" "$@"
}

simulate n_train=6 output_dir="$OUT/simulated"
simulate n_train=0 output_dir="$OUT/noise_free" snr_factor=inf # the same subjects, to judge by

reconstruct() {  # anatomy overrides...
  local anatomy=$1; shift
  mrisem reconstruct --multirun data="$anatomy" data.root="$OUT/simulated/$anatomy" \
    scale="$SCALE" mask.acceleration="[2,3,4,6,8,10]" output_dir="$OUT/material/round$ROUND" "$@"
}

network() {  # anatomy overrides...
  reconstruct "$1" model=unrolled model.checkpoint="$START" "${@:2}"
}

make_material() {  # anatomy contrasts
  local gaussian="mask=gaussian mask.calibration_lines=16" one=data.max_slices=1
  if [ "$ROUND" = 1 ]; then
    network "$1" fit=none $gaussian seed=0,1
    network "$1" fit=none mask=equispaced,random
    network "$1" fit=all fit.iterations=4,12 $gaussian $one
    reconstruct "$1" model=cg_sense +model.task.method.iterations=3,20 $gaussian
    reconstruct "$1" model=zero_filled $gaussian
    reconstruct "$1" model=zero_filled mask=equispaced
    reconstruct "$1" model=tv +model.task.method.iterations=10 $gaussian $one
  else
    network "$1" fit=all fit.iterations=24 $gaussian $one data.max_volumes=4 "data.acquisition=$2" \
      prior=image_same encoder.path="${ENCODER:-$OUT/janus_mini}" prior.balance=1
  fi
}

make_material brain AXFLAIR,AXT1,AXT2 & brain=$!
make_material knee CORPD_FBK,CORPDFS_FBK & knee=$!
wait $brain; wait $knee
