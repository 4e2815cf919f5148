"""Reads the snapshots of a run's power-function averages.

  ema_snapshots/<step>/state   {key of the average: parameters}
                      /config  the config of the run
                      /checksums.json, /_CHECKPOINT_METADATA  as a checkpoint's

They are written as checkpoints are, see `background_save`, so one is there
whole or not at all, on a disk or in a bucket.
"""

import os
from typing import Any

import jax
from etils import epath

from cdm.checkpointing import (
  average_names,
  model_check,
  orbax_output,
  reader,
  state_arrays,
  stored_format,
  verification,
)
from cdm.data.files import damaged_file, transient_errors
from cdm.distributed import bucket_folders, collectives

FOLDER = 'ema_snapshots'
FIELD = average_names.FIELD


def folder(workdir: str | os.PathLike) -> epath.Path:
  """Returns the folder of a run's snapshots, which may be in a bucket."""
  return bucket_folders.storage(workdir) / FOLDER


def steps(workdir: str | os.PathLike) -> list[int]:
  """Returns the steps of the complete snapshots, ascending; a collective."""
  directory = folder(workdir)
  return collectives.call_in_first(lambda: reader.complete_in(directory))


def contents(workdir: str | os.PathLike, step: int) -> tuple[list[float], str]:
  """Returns (widths of the averages of a snapshot, their dtype).

  A collective: process 0 looks, for all.
  """
  path = folder(workdir) / str(step)

  def look():
    stored_format.check(path)
    tree = state_arrays.handler().metadata(path / 'state').tree
    return [average_names.width(key) for key in tree[FIELD]], _dtype(tree)

  return _reading(path, lambda: collectives.call_in_first(look))


def read_config(workdir: str | os.PathLike, step: int) -> str:
  """Returns the config of the run that wrote a snapshot, as JSON text."""
  path = folder(workdir) / str(step)
  return _reading(path, lambda: reader.read_part(path, 'config')['text'])


def read(
  workdir: str | os.PathLike, abstract: Any, *, step: int, std: float
) -> Any:
  """Reads one average of a snapshot, in the dtype that it was written in.

  A collective: every process must call it, in the same order.

  Args:
    workdir: work directory of the run.
    abstract: tree of ShapeDtypeStructs with shardings; the dtype is not used.
    step: step of the snapshot.
    std: width of the average.

  Returns:
    tree of jax.Array.

  Raises:
    damaged_file.DamagedFile: the snapshot is damaged.
    model_check.ModelMismatch: it is of another model.
  """
  orbax_output.silence()
  path = folder(workdir) / str(step)
  name = average_names.name(average_names.STD, std)
  key = average_names.key(name)

  def look():
    stored_format.check(path)
    tree = state_arrays.handler().metadata(path / 'state').tree
    dtype = _dtype(tree)
    target = {FIELD: {key: abstract}}
    model_check.check_model(reader.shapes(tree), reader.shapes(target), path)
    return dtype

  def read_whole():
    verification.verify(path)
    dtype = collectives.call_in_first(
      look, errors=(model_check.ModelMismatch, stored_format.OtherFormat)
    )
    target = jax.tree.map(
      lambda s: jax.ShapeDtypeStruct(s.shape, dtype, sharding=s.sharding),
      abstract,
    )
    given = {FIELD: {key: target}}
    return state_arrays.read(path / 'state', given, partial=True)

  return _reading(path, read_whole)[FIELD][key]


def _dtype(tree):
  """Returns the name of the dtype of a snapshot's arrays."""
  return str(jax.tree.leaves(tree[FIELD])[0].dtype)


def _reading(path, read):
  """Returns what a function reads, or names the snapshot that is damaged."""
  try:
    return read()
  except (model_check.ModelMismatch, *reader.NOT_DAMAGE):
    raise
  except Exception as error:
    if transient_errors.not_of_the_file(error):
      raise
    raise damaged_file.DamagedFile(
      f'The snapshot {path} is damaged: {error}. Restore a copy of it, or '
      'remove its folder; other averages are then made from those that remain.'
    ) from error
