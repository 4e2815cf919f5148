"""Finds the step and the config of a trained stage, wherever it lies.

A stage lies in the work directory of its run, or in the file that it was packed
into.
"""

import os

from cdm.checkpointing import checkpoint_name, packed_stage, reader


def resolve(
  workdir: str | os.PathLike[str], at: int | str | None = None
) -> int:
  """Returns the step of the checkpoint that is meant; a collective.

  Args:
    workdir: work directory of a run, or a packed stage.
    at: which checkpoint, see `reader.resolve`. A packed stage has one.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: another one of a packed stage is asked for.
    damaged_file.DamagedFile: it is damaged.
  """
  if not packed_stage.is_packed(workdir):
    return reader.resolve(workdir, at)
  packed = packed_stage.read(workdir)
  if at is not None and at != packed.step:
    step, average = checkpoint_name.split(at)
    raise ValueError(
      f'{workdir} holds one set of parameters, of step {packed.step}; '
      f'{checkpoint_name.joined(step, average)} was asked for. Leave it out, '
      'or give the work directory of the run.'
    )
  return packed.step


def read_config(workdir: str | os.PathLike[str], step: int) -> str:
  """Returns the config of a checkpoint, a JSON text.

  Args:
    workdir: see `resolve`.
    step: what it returned.
  """
  if packed_stage.is_packed(workdir):
    return packed_stage.read(workdir).config
  return reader.read_config(workdir, step=step)
