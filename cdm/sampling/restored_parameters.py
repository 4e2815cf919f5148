"""Restores the EMA parameters of a checkpoint, once for all that draw with it.

The settings of a sweep draw with the same checkpoints, and reading one may take
minutes.
"""

import pathlib
from typing import Any, NamedTuple

import jax

from cdm.checkpointing import average_names, packed_stage
from cdm.sampling import posthoc_average


class RestoredParameters:
  """Parameters that were restored, one set for each work directory."""

  def __init__(self):
    self._kept: dict[tuple[pathlib.Path, str], Any] = {}

  def restore(
    self,
    workdir: pathlib.Path,
    abstract: Any,
    step: int,
    average: str = average_names.MAIN,
    *,
    role: str = '',
  ) -> tuple[Any, int]:
    """Returns (parameters, step), see `reader.restore_ema`.

    They are read unless the last call for this work directory and role asked
    for the same step, average, shapes and layout. A width that the run has not
    kept is made from its snapshots, see `posthoc_average`.

    Args:
      workdir: work directory of a run, or a packed stage.
      abstract, step: see `reader.restore_ema`.
      average: name of the average that they are.
      role: what they are used for. A stage and the earlier checkpoint of its
        own run that guides it are kept side by side.
    """
    home = (workdir.resolve(), role)
    leaves, structure = jax.tree.flatten(abstract)
    layout = [(leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves]
    asked = (step, average, structure, layout)
    if home not in self._kept or self._kept[home][0] != asked:
      self._kept.pop(home, None)  # Both may not fit into the memory.
      if packed_stage.is_packed(workdir):
        found = packed_stage.restore(workdir, abstract)
      else:
        found = posthoc_average.restore(workdir, abstract, step, average)
      self._kept[home] = asked, found
    return self._kept[home][1]


class Checkpoint(NamedTuple):
  """The checkpoint that a stage is restored from.

  Attributes:
    workdir: directory that `cdm train` wrote, or a packed stage.
    at: which checkpoint, see `reader.resolve`; None is the newest.
    restored: parameters of earlier calls, which are not read again; None keeps
      none.
  """

  workdir: pathlib.Path
  at: int | str | None = None
  restored: RestoredParameters | None = None
