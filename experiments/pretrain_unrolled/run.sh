#!/usr/bin/env bash
# The unrolled network that ships: one for brain and knee, trained on simulated subjects of seeds
# that nothing else uses. Resumable.
#
#   experiments/pretrain_unrolled/run.sh [OUT]
#
# SCALE     demo: what ships; smoke: seconds, for the test
# EPOCHS    over the training slices
# SUBJECTS  of each anatomy in each group
# SCANS     of scans, one a word: seed:size:coils:noise (a factor on the signal-to-noise ratio)
set -euo pipefail
OUT=${1:-outputs/pretrain_unrolled} SCALE=${SCALE:-demo} EPOCHS=${EPOCHS:-8} SUBJECTS=${SUBJECTS:-8}
SCANS=${SCANS:-2718:192:8:1 2719:192:12:0.6 2720:224:6:1.5 2722:208:4:0.8}
HERE=$(dirname "$0")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

echo "== data"
mkdir -p "$OUT"/data/multicoil_{train,val}
groups=0
for scans in $SCANS; do
  IFS=: read -r seed size coils snr <<<"$scans"
  mrisem simulate seed="$seed" scale="$SCALE" size="$size" n_coils="$coils" snr_factor="$snr" \
    n_train="$SUBJECTS" n_val=1 output_dir="$OUT/simulated/$seed"
  for file in "$OUT/simulated/$seed"/{brain,knee}/multicoil_{train,val}/*.h5; do
    split=$(basename "$(dirname "$file")")
    ln -f "$file" "$OUT/data/$split/${seed}_$(basename "$file")"
  done
  groups=$((groups + 1))
done

echo "== training"
mrisem train data=mixed data.root="$OUT/data" scale="$SCALE" model=unrolled \
  data.train_subjects=auxiliary auxiliary.n_subjects=$((groups * SUBJECTS)) \
  "mask.acceleration=[2,3,4,6,8]" scale.train.epochs="$EPOCHS" output_dir="$OUT/training"

echo "== export"
python "$HERE/export.py" "$OUT/training/checkpoints/last.ckpt" "$OUT/unrolled_mini.ckpt"
