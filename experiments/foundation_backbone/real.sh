#!/usr/bin/env bash
# The question's networks, trained on simulated brains, on scans of real images and on measured ones. After `make foundation-backbone`.
#
#   IMAGES=DIR experiments/foundation_backbone/real.sh [OUT]    # DIR as for real-images
set -euo pipefail
OUT=$(realpath "${1:-outputs/experiments/demo/foundation_backbone}")
reconstruct() {  # name of the arm, its options
  mrisem reconstruct --multirun data=brain,knee "data.root=$IMAGES/scans/\${data.name}" scale="${SCALE:-demo}" \
    mask.acceleration=4 fit=none model.checkpoint="$OUT/warm_start/brain/$1/checkpoints/last.ckpt" \
    model.name="$1" "${@:2}" output_dir="$OUT/real"
}
reconstruct unrolled model=unrolled
reconstruct unrolled_vgg16 model=unrolled_vit encoder=vgg16 'encoder.levels=[2,3,4]'
reconstruct unrolled_janus_mini model=unrolled_vit encoder=janus_mini 'encoder.levels=[1,3,4]'
reconstruct unrolled_random model=unrolled_vit encoder=vgg16 'encoder.levels=[2,3,4]' encoder.random_seed=0
mrisem evaluate 'reference=unrolled as trained' output_dir="$OUT/real"
