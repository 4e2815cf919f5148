"""Keeps the notes of a packed stage beside the work directory made of it.

Notes are texts such as the credits of the data or a model card. They go where
the weights go: from a file into a work directory and into the next file.
"""

import json
import os
import pathlib
from collections.abc import Mapping

from cdm.checkpointing import packed_stage
from cdm.data.files import atomic_files, json_file

FILE = 'notes.json'


def read(workdir: str | os.PathLike[str]) -> dict[str, str]:
  """Returns the notes of a stage, {name: text}; {} if it has none.

  Args:
    workdir: work directory of a run, or a packed stage.

  Raises:
    DamagedFile: their file is damaged.
  """
  if packed_stage.is_packed(workdir):
    return dict(packed_stage.read(workdir).notes)
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return {}
  remedy = 'Restore a copy, or remove it: it holds credits and the like.'
  return json_file.read(path, dict[str, str], remedy=remedy)


def write(workdir: str | os.PathLike[str], notes: Mapping[str, str]) -> None:
  """Writes notes into a work directory; does nothing if there are none."""
  if notes:
    text = json.dumps(dict(notes), indent=2) + '\n'
    atomic_files.write_text_atomically(pathlib.Path(workdir) / FILE, text)
