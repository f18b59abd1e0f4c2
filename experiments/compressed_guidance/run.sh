#!/usr/bin/env bash
# For each anatomy a student and a pruned VGG16, networks trained with and without the prior, and the question's runs.
# Resumable.
#
#   experiments/compressed_guidance/run.sh                   # two cores
#   SCALE=smoke experiments/compressed_guidance/run.sh OUT   # seconds: tries every command, and says nothing
set -euo pipefail
HERE=$(dirname "$0") SCALE=${SCALE:-demo} OUT=$(realpath -m "${1:-outputs/experiments/demo/compressed_guidance}")
DATA=$(realpath -m "${DATA:-$OUT/../data}") TRAIN="trainer.max_epochs=20"
STUDENT="" PRUNED="compression=pruned" START="model.checkpoint=unrolled_mini" MORE=()
if [ "$SCALE" = smoke ]; then
  STUDENT="compression.n_batches=2 compression.steps=2" PRUNED="$PRUNED compression.rounds=1"
  TRAIN="trainer.max_epochs=1" START="" MORE=(scale=smoke "model.checkpoint=null")
fi

echo "== scans, as those of all questions"
mrisem simulate scale="$SCALE" seed=13 n_train=12 n_val=6 output_dir="$DATA"
for anatomy in brain knee; do
  acquisition=AXT2; [ $anatomy = knee ] && acquisition=CORPD_FBK
  scans="data=$anatomy data.root=$DATA/$anatomy data.acquisition=$acquisition scale=$SCALE"
  echo "== $anatomy: encoders of the bank's subjects at a part of VGG16's cost"
  mrisem compress $scans $STUDENT output_dir="$OUT/student/$anatomy"
  mrisem compress $scans $PRUNED output_dir="$OUT/pruned/$anatomy"
  echo "== $anatomy: networks of the other subjects, trained with the prior and without it"
  train="train $scans mask.acceleration=4 objective=self_supervised $START $TRAIN"
  mrisem $train prior=image_same output_dir="$OUT/trained/$anatomy/with"
  mrisem $train prior=none output_dir="$OUT/trained/$anatomy/without"
done
echo "== reconstruction"
DATA=$DATA python "$HERE/../run.py" compressed_guidance --output "$OUT" "${MORE[@]}"
