#!/usr/bin/env bash
# The unrolled network that ships: one for brain and knee, trained on simulated subjects of a seed
# that nothing else uses. Resumable.
#
#   experiments/pretrain_unrolled/run.sh [OUT]
#
# SCALE   demo: what ships; smoke: seconds, for the test
# EPOCHS  over the training slices
set -euo pipefail
OUT=${1:-outputs/pretrain_unrolled} SCALE=${SCALE:-demo} EPOCHS=${EPOCHS:-5}
SUBJECTS=${SUBJECTS:-24}
HERE=$(dirname "$0")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

echo "== data"
mrisem simulate seed=2718 scale="$SCALE" n_train="$SUBJECTS" n_val=2 output_dir="$OUT/simulated"
for split in train val; do
  mkdir -p "$OUT/data/multicoil_$split"
  ln -f "$OUT"/simulated/{brain,knee}/multicoil_$split/*.h5 "$OUT/data/multicoil_$split/"
done

echo "== training"
mrisem train data=mixed data.root="$OUT/data" scale="$SCALE" model=unrolled \
  data.train_subjects=auxiliary auxiliary.n_subjects="$SUBJECTS" "mask.acceleration=[3,4,6,8]" \
  scale.train.epochs="$EPOCHS" output_dir="$OUT/training"

echo "== export"
python "$HERE/export.py" "$OUT/training/checkpoints/last.ckpt" "$OUT/unrolled_mini.ckpt"
