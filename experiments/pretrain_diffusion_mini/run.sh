#!/usr/bin/env bash
# The small diffusion model that ships: material, training, folder, denoising errors. Resumable.
#
#   experiments/pretrain_diffusion_mini/run.sh [OUT]
#
# CONFIG    config: what ships; smoke: seconds, for the test
# SUBJECTS  simulated subjects of each anatomy in each group, and of those held out
# SCANS     groups of simulated scans, one a word: seed:size:noise (a factor on the
#           signal-to-noise ratio); nothing else uses these seeds
# IMAGES    a folder of one's own images (DICOM, NIfTI) instead, with ANATOMY (brain, knee),
#           ACQUISITION (fastMRI's name of their contrast) and TRAIN, the number of subjects that
#           are trained on; the others judge
set -euo pipefail
OUT=${1:-outputs/pretrain_diffusion_mini} CONFIG=${CONFIG:-config} SUBJECTS=${SUBJECTS:-12:2}
SCANS=${SCANS:-1618:192:1 1619:224:1.5 1620:256:0.8} HERE=$(dirname "$0")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

echo "== material"
if [ -n "${IMAGES:-}" ]; then
  mrisem simulate source="$IMAGES" source_anatomy="${ANATOMY:?brain or knee}" \
    source_acquisition="${ACQUISITION:?such as AXT1}" source_train="${TRAIN:?a number}" \
    n_coils=4 output_dir="$OUT/simulated/images"
else
  for scans in $SCANS; do
    IFS=: read -r seed size snr <<<"$scans"
    mrisem simulate seed="$seed" scale=demo size="$size" n_coils=4 n_slices=4 snr_factor="$snr" \
      n_train="${SUBJECTS%:*}" n_val="${SUBJECTS#*:}" output_dir="$OUT/simulated/$seed"
  done
fi

echo "== training, and the plain network beside which its errors stand"
python "$HERE/train.py" --output "$OUT" --config "$HERE/$CONFIG.yaml"
