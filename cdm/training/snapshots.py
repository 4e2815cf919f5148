"""Opens the snapshots of averages that a run writes."""

import os

from cdm.checkpointing import snapshot_writer
from cdm.config import loader
from cdm.training import program


def open_writer(
  workdir: str | os.PathLike, assembled: program.Program, c: loader.ConfigDict
) -> snapshot_writer.SnapshotWriter | None:
  """Returns what writes them; None if the config asks for none.

  Args:
    workdir: work directory of the run.
    assembled: its program.
    c: its config, which is written with them.
  """
  asked = assembled.snapshots
  if asked is None:
    return None
  return snapshot_writer.SnapshotWriter(
    workdir,
    every_steps=asked.every_steps,
    num_steps=assembled.schedule.num_steps,
    keys=asked.keys,
    dtype=asked.dtype,
    config=loader.to_json(c),
  )
