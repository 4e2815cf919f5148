"""Estimates whether the checkpoints of a run fit on the disk.

A run whose disk fills ends after hours, at a checkpoint that is not written.
"""

import math
import os
import shutil
from typing import Any

import jax
import numpy as np

from cdm.distributed import bucket_folders
from cdm.training.averaged_state import averages_of
from cdm.training.ema_section import Snapshots
from cdm.training.run_config import Run


def shortage(
  workdir: str | os.PathLike,
  state: Any,
  schedule: Run,
  steps: list[int],
  *,
  keeps_best: bool = False,
  snapshots: Snapshots | None = None,
) -> str | None:
  """Compares the size of the checkpoints still to come with the free space.

  Args:
    workdir: work directory of the run, which exists.
    state: TrainState of arrays or ShapeDtypeStructs: parameters, average and
      optimizer state, all of which a checkpoint holds.
    schedule: the section `train`.
    steps: of the checkpoints that exist, in ascending order.
    keeps_best: whether the best checkpoint is kept beside the newest ones.
    snapshots: which snapshots of averages are written too, and all kept.

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
  count, each = _snapshots(state, snapshots, max(left, 0))
  total = more * size + count * each
  if total <= free:
    return None
  return (
    f'warning: {more} more checkpoints of about {_bytes(size)} will be in '
    f'{workdir} at a time'
    + (f' and {count} more snapshots of {_bytes(each)}' if count else '')
    + f', {_bytes(total)} in all, and '
    f'{_bytes(free)} are free. Free space, or lower '
    f'config.train.keep_checkpoints ({schedule.keep_checkpoints}; one more is '
    'there while it is written)'
    + (' or raise keep_every_steps' if schedule.keep_every_steps else '')
    + (' or raise config.ema.snapshot_every_steps' if count else '')
    + '.'
  )


def _snapshots(state, snapshots, left):
  """Returns (number of snapshots still to come, bytes of each)."""
  if snapshots is None:
    return 0, 0
  held = [averages_of(state)[key] for key in snapshots.keys]
  numbers = sum(leaf.size for leaf in jax.tree.leaves(held))
  each = numbers * np.dtype(snapshots.dtype).itemsize
  return math.ceil(left / snapshots.every_steps), each


def checkpoint_bytes(state: Any) -> int:
  """Returns the size of the arrays of a state, without compression."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _bytes(count: float) -> str:
  for unit, least in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if count >= least:
      return f'{count / least:.3g} {unit}'
  return f'{count:.0f} bytes'
