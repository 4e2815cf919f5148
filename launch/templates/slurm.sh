#!/usr/bin/env bash
@directives@
#SBATCH --requeue
#SBATCH --open-mode=append

# A preemption signals this shell too; it has to outlive the saving.
trap : TERM
set -u
# All nodes see the work directory, but perhaps not the same home.
CACHE=@cache@
export @cache_name@="${@cache_name@:-$CACHE}"
@variables@

echo "$(date +%FT%T%z) job $SLURM_JOB_ID on $SLURM_JOB_NODELIST," \
  "start ${SLURM_RESTART_COUNT:-0}"
# Who ends first must not have the others killed while they save: they get five
# minutes, and who waits for a lost process is ended then.
# Some versions of srun do not take the cores of a task over from the job.
srun --label --unbuffered --kill-on-bad-exit=0 --wait=300 \
  ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  @command@
CODE=$?
STATE=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
echo "$(date +%FT%T%z) exit code $CODE, job $STATE"

# @preempted@: preempted, all is saved; or a hang, or a storage that does not
# answer. @lost@: lost the others. @fault@: a GPU or its runtime failed, or a bug;
# cdm ends with 2 when it was started again in vain too often. Above 128: killed.
# A job that is not running any more was cancelled, or is queued already.
AGAIN=0
case $CODE in @preempted@ | @lost@ | @fault@) AGAIN=1 ;; esac
if [ "$CODE" -gt 128 ]; then AGAIN=1; fi
# Not @never_joined@: the tasks never found each other, and would not again.
if [ "$CODE" -eq @never_joined@ ]; then
  echo "The tasks did not find each other; the job is not queued again."
fi
if [ "$AGAIN" -eq 1 ] && [ "$STATE" = RUNNING ]; then
  if [ "${SLURM_RESTART_COUNT:-0}" -lt @restarts@ ]; then
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
  fi
fi
exit "$CODE"
