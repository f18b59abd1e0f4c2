#!/usr/bin/env bash
# For each anatomy a student and a pruned VGG16, networks trained with and without the prior, and the question's runs.
# Resumable.
#
#   experiments/compressed_guidance/run.sh               # two cores
#   TRY=1 experiments/compressed_guidance/run.sh OUT     # minutes: every command, on tiny scans that say nothing
set -euo pipefail
HERE=$(dirname "$0") OUT=$(realpath -m "${1:-outputs/experiments/demo/compressed_guidance}")
DATA=$(realpath -m "${DATA:-$OUT/../data}") SIZE="scale=demo seed=13 n_train=12 n_val=6"
STUDENT="" PRUNED="compression=pruned" TRAIN="trainer.max_epochs=20" BANK="" FITS=""
if [ -n "${TRY:-}" ]; then
  SIZE="scale=smoke n_train=4" BANK="auxiliary.n_subjects=2" TRAIN="trainer.max_epochs=1" FITS="fit.iterations=2 $BANK"
  STUDENT="compression.n_batches=2 compression.steps=2" PRUNED="$PRUNED compression.rounds=1"
fi

echo "== scans, as those of all questions"
mrisem simulate $SIZE output_dir="$DATA"
for anatomy in brain knee; do
  acquisition=AXT2; [ $anatomy = knee ] && acquisition=CORPD_FBK
  scans="data=$anatomy data.root=$DATA/$anatomy data.acquisition=$acquisition scale=demo $BANK"
  echo "== $anatomy: encoders of the bank's subjects at a part of VGG16's cost"
  mrisem compress $scans $STUDENT output_dir="$OUT/student/$anatomy"
  mrisem compress $scans $PRUNED output_dir="$OUT/pruned/$anatomy"
  echo "== $anatomy: networks of the other subjects, trained with the prior and without it"
  train="train $scans mask.acceleration=4 objective=self_supervised model.checkpoint=unrolled_mini $TRAIN"
  mrisem $train prior=image_same output_dir="$OUT/trained/$anatomy/with"
  mrisem $train prior=none output_dir="$OUT/trained/$anatomy/without"
done
echo "== reconstruction"
DATA=$DATA python "$HERE/../run.py" compressed_guidance --output "$OUT" $FITS
