#!/usr/bin/env bash
# Starts or ends a SLURM of this one machine.
#
#   apt install slurm-wlm munge
#   bash benchmarks/slurm_daemons.sh start DIRECTORY [CPUS [NODES]]
#   bash benchmarks/slurm_daemons.sh stop DIRECTORY
#
# Its files, slurm.conf among them, lie in DIRECTORY; set SLURM_CONF to that one
# to talk to it. munged, slurmctld and slurmd run as the user who starts them.
# Root is needed if munge's key is not readable. CPUS, 2 by default, is that of
# each node, and may be more than the machine has. NODES, 1 by default, is how
# many slurmd run here; each is a node to SLURM.
set -euo pipefail
ACTION=${1:?start or stop}
DIR=$(mkdir -p "${2:?DIRECTORY}" && cd "$2" && pwd)
CPUS=${3:-2}
NODES=${4:-1}
export SLURM_CONF=$DIR/slurm.conf
PATH=$PATH:/usr/sbin

node() { # name of a node; tasks find the first one, whose name resolves
  [ "$1" -eq 1 ] && hostname -s || echo "$(hostname -s)-$1"
}

start() {
  mkdir -p "$DIR/state" "$DIR/spool"
  head -c 1024 /dev/urandom > "$DIR/munge.key"
  chmod 600 "$DIR/munge.key"
  cat > "$SLURM_CONF" <<END
ClusterName=one
SlurmctldHost=$(hostname -s)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
# cred_expire is also how long a job that is queued again waits.
AuthInfo=socket=$DIR/munge.socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort=16817
SlurmdParameters=config_overrides
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd-%n.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd-%n.log
# No cgroups needed: a container seldom has them.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=60
SchedulerParameters=batch_sched_delay=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
  for index in $(seq "$NODES"); do
    mkdir -p "$DIR/spool/$(node "$index")"
    echo "NodeName=$(node "$index") NodeHostname=$(hostname -s)" \
      "Port=$((16817 + index)) CPUs=$CPUS RealMemory=2000 State=UNKNOWN"
  done >> "$SLURM_CONF"
  munged --force --key-file="$DIR/munge.key" --socket="$DIR/munge.socket" \
    --pid-file="$DIR/munge.pid" --log-file="$DIR/munge.log" \
    --seed-file="$DIR/munge.seed"
  slurmctld -c -i
  for index in $(seq "$NODES"); do slurmd -N "$(node "$index")"; done
  for _ in $(seq 60); do
    if [ "$(sinfo --noheader --states=idle --format=%D)" = "$NODES" ]; then
      return
    fi
    sleep 1
  done
  echo "SLURM did not come up; see $DIR/slurmctld.log and slurmd-*.log" >&2
  return 1
}

stop() {
  scancel --user="$(id -un)" 2>/dev/null || true
  sleep 2
  for file in "$DIR"/slurmd-*.pid "$DIR/slurmctld.pid" "$DIR/munge.pid"; do
    [ ! -s "$file" ] || kill "$(cat "$file")" || true
  done
}

case $ACTION in
  start | stop) "$ACTION" ;;
  *) echo "'$ACTION' is neither start nor stop" >&2; exit 2 ;;
esac
