#!/usr/bin/env bash
# Stops what start.sh started, but for munge.
set -uo pipefail
FOLDER=${1:?folder}
export SLURM_CONF=$FOLDER/slurm.conf
scancel --partition=main  # what was left running by a test that failed
for _ in $(seq 30); do
  [ -z "$(squeue --noheader)" ] && break
  sleep 1
done
for program in slurmd slurmctld; do
  [ -s "$FOLDER/$program.pid" ] && kill "$(cat "$FOLDER/$program.pid")"
done
exit 0
