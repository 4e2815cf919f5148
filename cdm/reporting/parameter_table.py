"""Writes a table of a network's parameters: names, shapes and their layout."""

from __future__ import annotations

import pathlib
from typing import Any

from cdm.data.files import atomic_files

NAME = 'parameters.txt'


def write(folder: pathlib.Path, params: Any) -> None:
  """Writes FOLDER/parameters.txt, a line per array and their total.

  Args:
    folder: the folder, which exists.
    params: nested dict of arrays or ShapeDtypeStructs that carry a sharding.
      The last column shows over which axes of the mesh each array is split.

  Raises:
    OSError: the file cannot be written.
  """
  # Imported here, because it imports JAX and Flax.
  from clu import parameter_overview

  text = parameter_overview.get_parameter_overview(
    params, include_stats='sharding', max_lines=None
  )
  atomic_files.write_text_atomically(folder / NAME, text + '\n')
