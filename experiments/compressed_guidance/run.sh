#!/usr/bin/env bash
# For each anatomy a student and a pruned VGG16, networks trained with and without the prior, and the question's runs.
# Resumable.
#
#   experiments/compressed_guidance/run.sh
set -euo pipefail
HERE=$(dirname "$0") OUT=$PWD/outputs/experiments/demo/compressed_guidance
DATA=${DATA:-$PWD/outputs/experiments/demo/data}

echo "== scans, as those of all questions"
mrisem simulate scale=demo seed=13 n_train=12 n_val=6 output_dir="$DATA"
make_arms() {  # anatomy acquisition
  scans=(data="$1" data.root="$DATA/$1" data.acquisition="$2" scale=demo)
  echo "== $1: encoders of the bank's subjects at a part of VGG16's cost"
  mrisem compress "${scans[@]}" output_dir="$OUT/student/$1"
  mrisem compress "${scans[@]}" compression=pruned output_dir="$OUT/pruned/$1"
  echo "== $1: networks of the other subjects, trained with the prior and without it"
  train=(train "${scans[@]}" mask.acceleration=4 objective=self_supervised model.checkpoint=unrolled_mini trainer.max_epochs=20)
  mrisem "${train[@]}" prior=image_same output_dir="$OUT/trained/$1/with"
  mrisem "${train[@]}" prior=none output_dir="$OUT/trained/$1/without"
}
make_arms brain AXT2
make_arms knee CORPD_FBK
echo "== reconstruction"
DATA=$DATA python "$HERE/../run.py" compressed_guidance
