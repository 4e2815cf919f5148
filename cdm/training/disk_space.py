"""Estimates whether the checkpoints of a run fit on the disk.

A run whose disk fills ends after hours, at a checkpoint that is not written.
"""

import math
import os
import shutil
from typing import Any

import jax

from cdm.distributed import bucket_folders
from cdm.training.run_config import Run


def shortage(
  workdir: str | os.PathLike,
  state: Any,
  schedule: Run,
  steps: list[int],
  *,
  keeps_best: bool = False,
) -> str | None:
  """Compares the size of the checkpoints still to come with the free space.

  Args:
    workdir: work directory of the run, which exists.
    state: TrainState of arrays or ShapeDtypeStructs: parameters, average and
      optimizer state, all of which a checkpoint holds.
    schedule: the section `train`.
    steps: of the checkpoints that exist, in ascending order.
    keeps_best: whether the best checkpoint is kept beside the newest ones.

  Returns:
    A warning, or None if the checkpoints fit, as they do in a bucket.
  """
  if bucket_folders.url_of(workdir) is not None:
    return None
  size = checkpoint_bytes(state)
  left = schedule.num_steps - (steps[-1] if steps else 0)
  saves = math.ceil(max(left, 0) / schedule.save_every_steps)
  if schedule.save_every_minutes:
    saves = max(left, 0)  # The clock may add any number.
  # The oldest goes only when the newest is complete.
  most = schedule.keep_checkpoints + 1 + keeps_best
  if schedule.keep_every_steps:
    most += schedule.num_steps // schedule.keep_every_steps
  more = min(saves, max(most - len(steps), 1))
  free = shutil.disk_usage(workdir).free
  if more * size <= free:
    return None
  return (
    f'warning: {more} more checkpoints of about {_bytes(size)} will be in '
    f'{workdir} at a time, {_bytes(more * size)} in all, and '
    f'{_bytes(free)} are free. Free space, or lower '
    f'config.train.keep_checkpoints ({schedule.keep_checkpoints}; one more is '
    'there while it is written)'
    + (' or raise keep_every_steps' if schedule.keep_every_steps else '')
    + '.'
  )


def checkpoint_bytes(state: Any) -> int:
  """Returns the size of the arrays of a state, without compression."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _bytes(count: float) -> str:
  for unit, least in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if count >= least:
      return f'{count / least:.3g} {unit}'
  return f'{count:.0f} bytes'
