#!/usr/bin/env bash
# Stops what start.sh started, but for munge.
set -uo pipefail
FOLDER=${1:?folder}
for program in slurmd slurmctld; do
  [ -s "$FOLDER/$program.pid" ] && kill "$(cat "$FOLDER/$program.pid")"
done
exit 0
