#!/usr/bin/env bash
@directives@
#SBATCH --requeue
#SBATCH --open-mode=append

# A preemption signals this shell too; it has to outlive the saving.
trap : TERM
set -u

echo "$(date -Is) job $SLURM_JOB_ID on $SLURM_JOB_NODELIST," \
  "start ${SLURM_RESTART_COUNT:-0}"
# Who ends first must not have the others killed while they save: they get five
# minutes, and who waits for a lost process is ended then.
srun --label --unbuffered --kill-on-bad-exit=0 --wait=300 \
  @command@
CODE=$?
STATE=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
echo "$(date -Is) exit code $CODE, job $STATE"

# 75: preempted, all is saved. 76: lost the others. Above 128: killed. A job
# that is not running any more was cancelled, or is queued again already.
AGAIN=0
if [ "$CODE" -eq 75 ] || [ "$CODE" -eq 76 ] || [ "$CODE" -gt 128 ]; then AGAIN=1; fi
if [ "$AGAIN" -eq 1 ] && [ "$STATE" = RUNNING ]; then
  if [ "${SLURM_RESTART_COUNT:-0}" -lt @restarts@ ]; then
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
  fi
fi
exit "$CODE"
