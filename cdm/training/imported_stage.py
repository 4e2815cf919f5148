"""Makes a work directory of the file that `cdm export` wrote of a stage.

The directory has the config, the parameters, the names of the classes and the
notes of the file; its checkpoint is of step 0, with a new optimizer.
"""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cdm.checkpointing import packed_stage, stage_notes
from cdm.config import loader, placement, stage
from cdm.data import class_names
from cdm.training import imported_weights, teacher

WEIGHTS = 'model.safetensors'  # in a folder, see `sampling.exported_folder`


class PackedImport(NamedTuple):
  """A stage of a file, to be written as a work directory.

  Attributes:
    packed: what the file holds.
    config: its config, with what the user changes.
    params: its parameters, nested dicts of float32 arrays.
    read_frozen: reads the parameters of a student's teacher, see
      `teacher.frozen_reader`; None for other methods.
  """

  packed: packed_stage.Packed
  config: loader.ConfigDict
  params: dict
  read_frozen: Callable[[Any], Any] | None


def read(
  path: str | os.PathLike[str],
  workdir: pathlib.Path,
  *,
  name: str | None = None,
  overrides: Sequence[tuple[str, str]] = (),
) -> PackedImport:
  """Reads a packed stage, and checks that its config describes its arrays.

  Args:
    path: path of the file, or of a folder in the layout of Hugging Face.
    workdir: the work directory that it becomes.
    name: of the stage; None keeps that of the file.
    overrides: ((dotted key, text), ...), applied to the config of the file.

  Raises:
    FileNotFoundError: there is no such file.
    DamagedFile: it is damaged, or holds no stage.
    ValueError: its arrays are those of another network than its config
      describes, or it is a student whose teacher is not here.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = path / WEIGHTS
  if not packed_stage.is_packed(path):
    raise ValueError(
      f'{path} is not a {packed_stage.SUFFIX} file; give the one that `cdm '
      'export` wrote.'
    )
  packed = packed_stage.read(path)
  c = loader.from_json(packed.config, path)
  stage.refuse_classifier(c, f'imported (in {path})')
  loader.override_all(c, [*overrides, *([('name', name)] if name else [])])
  try:
    c = teacher.resolved(c, workdir)
  except ValueError as error:
    raise ValueError(
      f'{path} holds a student, which only its teacher can train further: '
      f'{error} To draw with it, give the file as --workdir.'
    ) from error
  params, _ = packed_stage.restore(
    path, placement.abstract_params(stage.stage(c).method)
  )
  return PackedImport(packed, c, params, teacher.frozen_reader(c))


def write_workdir(made: PackedImport, workdir: pathlib.Path) -> list[str]:
  """Writes the work directory, see `imported_weights.write_workdir`.

  Returns:
    What to tell about it, a list of lines.

  Raises:
    ValueError: it holds checkpoints already.
  """
  lines = imported_weights.write_workdir(
    made.config, workdir, made.params, made.read_frozen
  )
  notes = dict(made.packed.notes)
  classes = notes.pop(packed_stage.CLASSES, None)
  if classes is not None:
    class_names.write(workdir, json.loads(classes))
  stage_notes.write(workdir, notes)
  kept = f', with notes: {", ".join(notes)}' if notes else ''
  return [
    *lines,
    f'from step {made.packed.step:,} of {made.config.name!r}, sha256 '
    f'{made.packed.sha256}{kept}',
  ]
