#!/usr/bin/env bash
# Trains configs/smoke.py as a job of two nodes on a SLURM of this one machine,
# and has it queued again twice: by `scontrol requeue`, as a preemption does it,
# and by its own script after a SIGTERM, as a time limit does it. Compares its
# parameters with those of a run that was never interrupted, and the starts with
# those that restarts.jsonl counts. Then trains one that becomes NaN, which must
# end and not be queued again.
#
#   apt install slurm-wlm munge
#   PYTHON=.venv/bin/python bash benchmarks/slurm_one_machine.sh DIRECTORY
#
# The SLURM is that of benchmarks/slurm_daemons.sh, with its files in DIRECTORY.
set -euo pipefail
cd "$(dirname "$0")/.."
DIR=$(mkdir -p "${1:?DIRECTORY}" && cd "$1" && pwd)
PYTHON=$(realpath -s "${PYTHON:-.venv/bin/python}")
STEPS=${STEPS:-400}
export SLURM_CONF=$DIR/slurm.conf JAX_PLATFORMS=cpu
PATH=$PATH:/usr/sbin

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

submit() { # as a user does; $1: work directory, then other arguments
  local name=$1
  shift
  "$PYTHON" launch/launch.py slurm --config=configs/smoke.py \
    --workdir="$DIR/$name" --nodes=2 --tasks_per_node=1 --cpus_per_task=2 \
    --python="$PYTHON" --env=JAX_PLATFORMS=cpu \
    --config.train.num_steps="$STEPS" --config.train.save_every_steps="$STEPS" \
    --config.train.sample_every_steps=0 --config.train.log_every_steps=10 "$@"
}

keep_log() { # prints that of job $1 and puts it aside
  cat "cdm-smoke-$1.log"
  mv "cdm-smoke-$1.log" "$DIR"
}

trap 'bash benchmarks/slurm_daemons.sh stop "$DIR"' EXIT
bash benchmarks/slurm_daemons.sh start "$DIR" 2 2
say "SLURM $(sinfo --version) is up: $(sinfo --noheader --format='%N %T')"

rm -rf "$DIR/run" "$DIR/whole" "$DIR/nan"
submit run
JOB=$(job_ids)
wait_for_rows $((STEPS / 40))
say "the step has $(scontrol show step "$JOB.0" \
  | grep -o 'Nodes=[^ ]*\|CPUs=[^ ]*\|Tasks=[^ ]*' | tr '\n' ' ')"
say "scontrol requeue $JOB, as a preemption does, at row $(rows run)"
scontrol requeue "$JOB"
wait_for_rows $((STEPS / 20))
say "scancel --signal=TERM $JOB, as a time limit does, at row $(rows run)"
scancel --signal=TERM "$JOB"
until [ "$(grep -c '"step"' "$DIR/run/restarts.jsonl")" -ge 3 ] \
  || [ -z "$(job_ids)" ]; do sleep 0.5; done
say "restarts.jsonl at the third start; it is empty when a run is complete:"
cat "$DIR/run/restarts.jsonl"
while [ -n "$(job_ids)" ]; do sleep 1; done
say "the job's log:"
keep_log "$JOB"
say "how each start ended, as sessions.jsonl has it:"
grep -o '"ended": "[^"]*"' "$DIR/run/sessions.jsonl"

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
say "a run that becomes NaN"
submit nan --config.optimizer.learning_rate=1e38 2>/dev/null
JOB=$(job_ids)
while [ -n "$(job_ids)" ]; do sleep 1; done
keep_log "$JOB"
say "its restarts.jsonl:"
cat "$DIR/nan/restarts.jsonl"
STARTS=$(grep -c '"step"' "$DIR/nan/restarts.jsonl")
LAST=$(tail -n 1 "$DIR/nan/restarts.jsonl")
case $STARTS:$LAST in
  1:*'"code": 3'*) say "done: it ended with 3 at its first start" ;;
  *) say "it should have ended with 3 at its first start"; exit 1 ;;
esac
