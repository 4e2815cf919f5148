"""Begins a run, or continues the one in its work directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from cdm.training import averaged_state, frozen_state
from cdm.training.collaborators import Collaborators, compared_part
from cdm.training.running_metrics import RunningMetrics
from cdm.training.state import TrainState, Weights

if TYPE_CHECKING:
  from cdm.training.optimizer import Optimizer
  from cdm.training.run_config import Run


def start(
  init: Callable[[jax.Array], object],
  tx: Optimizer,
  *,
  key: jax.Array,
  abstract: TrainState,
  schedule: Run,
  collaborators: Collaborators,
  read_weights: Callable[[], Weights] | None = None,
  read_frozen: Callable[[Any], Any] | None = None,
) -> tuple[TrainState, RunningMetrics]:
  """Begins a run, or continues it if its work directory has a checkpoint.

  Args:
    init: key -> params.
    tx: the optimizer.
    key: typed key of the run; a continued run keeps the key it began with.
    abstract: shapes and shardings of the state, which
      `partitioning.with_shardings` returns.
    schedule: the section `train`; only its spike factor is used here.
    collaborators: the objects of the run. The iterator is moved to the position
      saved in the checkpoint, or behind the data that a rollback to that
      checkpoint skipped. The reporter removes log lines of steps after the
      checkpoint. Local copies that are newer than the checkpoint are used
      instead, and saved as one.
    read_weights: reads what a new run starts from; by default, from random
      parameters.
    read_frozen: see `frozen_state.make`.

  Returns:
    (TrainState on the mesh, metrics since the last log line), for `train`.

  Raises:
    replica_comparison.ReplicasDiffer: devices that must hold the same values
      hold different ones after the state was restored.
  """
  checkpointer, reporter = collaborators.checkpointer, collaborators.reporter
  rollbacks, copies = collaborators.rollbacks, collaborators.local_copies
  copied = None
  if copies is not None:
    copied = copies.restore_newer(abstract, than=checkpointer.latest_step())
  restored = copied or checkpointer.restore_latest(abstract)
  if restored is None:
    state = averaged_state.make(
      lambda own: frozen_state.make(
        init, tx, read_weights, read_frozen, key=key, abstract=own
      ),
      abstract,
    )
    step = 0
    if read_weights is not None and collaborators.comparison is not None:
      collaborators.comparison.check(compared_part(state), step)
  else:
    state, step = restored.state, restored.step
    skipped = rollbacks.position(step) if rollbacks is not None else None
    position = skipped or restored.data_state
    # Weights that `cdm import` wrote, as step 0, have seen no data.
    if position is not None or step:
      collaborators.iterator.set_state(position)
    if collaborators.comparison is not None:
      collaborators.comparison.check(compared_part(state), step)
    where = 'checkpoint' if copied is None else "hosts' local copies"
    reporter.say(f'continuing from the {where} of step {step}')
  metrics = RunningMetrics(
    None if restored is None else restored.window,
    spike_factor=schedule.grad_norm_spike_factor,
    skip_nonfinite=tx.skip_nonfinite,
  )
  # The rollbacks are changed last, because a start that is refused must leave
  # the run unchanged.
  if rollbacks is not None:
    rollbacks.resume(step)
  reporter.resume(step)
  if collaborators.snapshots is not None:
    # A later one is made again; the run may have been killed before this one.
    collaborators.snapshots.forget_after(step)
    if collaborators.snapshots.is_due(step):
      collaborators.snapshots.write(step, averaged_state.averages_of(state))
  checkpointer.write_config()
  if copied is not None:
    # What only the local disks have becomes a checkpoint at once.
    checkpointer.save(
      step, state, data_state=copied.data_state, window=copied.window
    )
  return state, metrics
