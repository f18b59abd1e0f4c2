#!/usr/bin/env bash
# Starts a SLURM cluster of one node on this machine, for tests/test_slurm.py. As root, on Debian:
#
#   apt-get install slurm-wlm munge
#   tests/slurm/start.sh FOLDER      # configuration, state and logs go to FOLDER
#   tests/slurm/stop.sh FOLDER
#
# Afterwards `PATH=FOLDER/bin:$PATH SLURM_CONF=FOLDER/slurm.conf srun hostname` runs a job. Nothing is accounted, jobs are
# neither confined nor bound to cores: good for trying the launcher, for nothing else.
set -euo pipefail
FOLDER=$(mkdir -p "${1:?folder}" && cd "$1" && pwd)
[ "$(id -u)" = 0 ] || { echo "start.sh must run as root"; exit 1; }
mkdir -p "$FOLDER"/{bin,state,spool,log}
# some Debian packages divert srun; sbatch's scripts call it by its own name
[ -x /usr/bin/srun.slurm ] && ln -sf /usr/bin/srun.slurm "$FOLDER/bin/srun"
export PATH=$FOLDER/bin:$PATH:/usr/sbin
for program in munged slurmctld slurmd srun; do
  command -v "$program" > /dev/null \
    || { echo "$program is missing: apt-get install slurm-wlm munge"; exit 1; }
done

cat > "$FOLDER/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/log/slurmctld.log
SlurmdLogFile=$FOLDER/log/slurmd.log
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$(hostname -s) Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
CONF

if ! munge -n > /dev/null 2>&1; then
  [ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
  chown -R munge: /etc/munge && chmod 400 /etc/munge/munge.key
  mkdir -p /run/munge /var/log/munge && chown munge: /run/munge /var/log/munge && chmod 755 /run/munge
  su -s /bin/sh munge -c /usr/sbin/munged
fi
export SLURM_CONF=$FOLDER/slurm.conf
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 30); do
  if [ "$(sinfo --noheader --format=%t 2> /dev/null)" = idle ]; then
    echo "SLURM_CONF=$SLURM_CONF"
    exit 0
  fi
  sleep 1
done
echo "the node did not become idle; see $FOLDER/log"
sinfo || true
exit 1
