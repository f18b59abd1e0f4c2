#!/usr/bin/env bash
# A janus_mini of brains alone, its adapters to knees and to brains once more, and the question's runs. Resumable.
#
#   experiments/adapted/run.sh    # hours of two cores, nearly all of them for the model of brains
set -euo pipefail
HERE=$(dirname "$0") OUT=$PWD/outputs/experiments/demo/adapted
DATA=${DATA:-$PWD/outputs/experiments/demo/data}

echo "== a model that has seen brains alone"
ANATOMIES=brain "$HERE/../pretrain_janus_mini/run.sh" "$OUT/brains"
echo "== scans, as those of all questions"
mrisem simulate scale=demo seed=13 n_train=12 n_val=6 output_dir="$DATA"
echo "== adapted to knees, and to brains once more"
adapt() {  # anatomy folder
  mrisem adapt root="$DATA/$1" encoder.path="$OUT/brains/janus_mini" 'encoder.levels=[1,3,4]' \
    'encoder.prior_defaults.components=[32,64,96]' steps=600 output_dir="$OUT/$2"
}
adapt knee knees
adapt brain again
echo "== guided reconstruction"
DATA=$DATA python "$HERE/../run.py" adapted
