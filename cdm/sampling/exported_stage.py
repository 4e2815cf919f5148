"""Writes a trained stage into one file that every drawing command takes."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from cdm.checkpointing import (
  checkpoint_name,
  packed_stage,
  stage_files,
  stage_notes,
)
from cdm.checkpointing.packed_stage import Packed
from cdm.config import loader, placement, stage
from cdm.data import class_names
from cdm.sampling.restored_parameters import RestoredParameters

# The parameters of a stage fit one host.
MESH: Mapping[str, Any] = {'data': -1, 'fsdp': 1}


class Read(NamedTuple):
  """A trained stage that was read to be exported.

  Attributes:
    config: its config.
    text: the same, as the JSON text that it was read from.
    params: one average of its parameters.
    step: step of the checkpoint.
  """

  config: loader.ConfigDict
  text: str
  params: Any
  step: int


def classes(workdir: pathlib.Path) -> list[str] | None:
  """Returns the names of the classes of a stage, or None.

  Args:
    workdir: work directory of a run, or a packed stage.
  """
  if not packed_stage.is_packed(workdir):
    return class_names.read(workdir)
  return packed_stage.classes(packed_stage.read(workdir))


def export(
  workdir: pathlib.Path,
  out: pathlib.Path,
  *,
  at: int | str | None = None,
  dtype: str = 'float32',
  notes: Mapping[str, str] | None = None,
) -> Packed:
  """Packs a stage, see `checkpointing.packed_stage`.

  Args:
    workdir: work directory of a run, or a packed stage.
    out: path of the file.
    at: which checkpoint, see `reader.resolve`.
    dtype: see `packed_stage.write`.
    notes: texts beside those that the stage has, which they replace.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: it holds a classifier, or cannot be written so.
  """
  read = read_stage(workdir, at)
  given = stage_notes.read(workdir) | dict(notes or {})
  if names := classes(workdir):
    given[packed_stage.CLASSES] = json.dumps(names)
  return packed_stage.write(
    out, read.params, config=read.text, step=read.step, dtype=dtype, notes=given
  )


def read_stage(workdir: pathlib.Path, at: int | str | None = None) -> Read:
  """Reads a trained stage; its parameters fit one host.

  Args:
    workdir, at: see `export`.

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: it holds a classifier.
  """
  step = stage_files.resolve(workdir, at)
  text = stage_files.read_config(workdir, step)
  saved = loader.from_json(text, workdir)
  stage.refuse_classifier(saved, f'exported (in {workdir})')
  built = stage.stage(saved)
  params, step = RestoredParameters().restore(
    workdir,
    placement.placed_params(built.method, MESH, placement.drawing_mesh(MESH)),
    step,
    checkpoint_name.split(at)[1],
  )
  return Read(saved, text, params, step)
