#!/usr/bin/env bash
# Trains configs/smoke.py as a job of two tasks on a SLURM of this one machine,
# and has it queued again twice: by `scontrol requeue`, as a preemption does it,
# and by its own script after a SIGTERM, as a time limit does it. Then compares
# its parameters with those of a run that was never interrupted.
#
#   apt install slurm-wlm munge
#   PYTHON=.venv/bin/python bash benchmarks/slurm_one_machine.sh DIRECTORY
#
# Starts munged, slurmctld and slurmd with files in DIRECTORY, as the user who
# runs it, and ends them. Root is needed if munge's key is not readable.
set -euo pipefail
cd "$(dirname "$0")/.."
DIR=$(mkdir -p "${1:?DIRECTORY}" && cd "$1" && pwd)
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
STEPS=${STEPS:-400}
export SLURM_CONF=$DIR/slurm.conf JAX_PLATFORMS=cpu
PATH=$PATH:/usr/sbin

start_slurm() {
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
SlurmdPort=16818
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
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
NodeName=$(hostname -s) CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
  munged --force --key-file="$DIR/munge.key" --socket="$DIR/munge.socket" \
    --pid-file="$DIR/munge.pid" --log-file="$DIR/munge.log" \
    --seed-file="$DIR/munge.seed"
  slurmctld -c -i && slurmd
}

stop_slurm() {
  scancel --user="$(id -un)" 2>/dev/null || true
  sleep 2
  for daemon in slurmd slurmctld munge; do
    [ ! -s "$DIR/$daemon.pid" ] || kill "$(cat "$DIR/$daemon.pid")" || true
  done
}

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }

job_ids() { squeue --noheader --format=%i --name=cdm-smoke; }

rows() { # so many log lines the run in $DIR/$1 has written
  local log=$DIR/$1/scalars.jsonl
  grep -cs '"loss"' "$log" || [ -e "$log" ] || echo 0
}

wait_for_rows() {
  until [ "$(rows run)" -ge "$1" ]; do
    [ -n "$(job_ids)" ] || { say "the job ended too early"; return 1; }
    sleep 0.5
  done
}

submit() { # as a user does; $1: work directory
  "$PYTHON" launch/launch.py slurm --config=configs/smoke.py \
    --workdir="$DIR/$1" --tasks_per_node=2 --python="$PYTHON" \
    --config.train.num_steps="$STEPS" --config.train.save_every_steps="$STEPS" \
    --config.train.sample_every_steps=0 --config.train.log_every_steps=10
}

trap stop_slurm EXIT
start_slurm
until sinfo --noheader --format=%T | grep -q idle; do sleep 1; done
say "SLURM $(sinfo --version) is up: $(sinfo --noheader --format='%N %T')"

rm -rf "$DIR/run" "$DIR/whole"
submit run
JOB=$(job_ids)
wait_for_rows $((STEPS / 40))
say "scontrol requeue $JOB, as a preemption does, at row $(rows run)"
scontrol requeue "$JOB"
wait_for_rows $((STEPS / 20))
say "scancel --signal=TERM $JOB, as a time limit does, at row $(rows run)"
scancel --signal=TERM "$JOB"
while [ -n "$(job_ids)" ]; do sleep 1; done
say "the job's log:"
cat "cdm-smoke-$JOB.log"
mv "cdm-smoke-$JOB.log" "$DIR"

say "the same without interruption"
submit whole 2>/dev/null
while [ -n "$(job_ids)" ]; do sleep 1; done
mv cdm-smoke-*.log "$DIR"
"$PYTHON" - "$DIR" <<'END'
import json, pathlib, sys

def losses(run):
  rows = pathlib.Path(sys.argv[1], run, 'scalars.jsonl').read_text().splitlines()
  rows = [json.loads(row) for row in rows]
  return {r['step']: (r['loss'], r['param_norm']) for r in rows if 'loss' in r}

run, whole = losses('run'), losses('whole')
differing = [step for step in whole if run.get(step) != whole[step]]
print(f'{len(whole)} logged steps, {len(differing)} differ: {differing[:9]}')
sys.exit(bool(differing or len(run) != len(whole)))
END
say "done"
