"""Reads and writes small files beside checkpoints, on disk or in a bucket.

A path in a bucket has no unfinished name to be renamed from: an object appears
whole or not at all, so it is written in one request.
"""

import os
from typing import Any

from etils import epath

from cdm.data.files import atomic_files, json_file


def is_remote(path: epath.Path) -> bool:
  """Returns whether a path is that of an object in a bucket."""
  return '://' in os.fspath(path)


def write_text(path: epath.Path, text: str) -> None:
  """Writes a text file that is there whole or not at all.

  Raises:
    OSError: it cannot be written.
  """
  if is_remote(path):
    path.write_text(text, encoding='utf-8')
  else:
    atomic_files.write_text_atomically(path, text)


def read_json(path: epath.Path, declared: Any, *, remedy: str) -> Any:
  """Reads a JSON file; see `json_file.read`."""
  data = path.read_bytes()
  return json_file.parse(data, declared, name=str(path), remedy=remedy)


def size(path: epath.Path) -> int | None:
  """Returns the size of a file in bytes, or None if there is none."""
  try:
    # etils would look up the owner's name on a disk, which may have none.
    status = path.stat() if is_remote(path) else os.stat(path)
  except FileNotFoundError:
    return None
  if isinstance(status, os.stat_result):
    return status.st_size if not path.is_dir() else None
  return None if status.is_directory else status.length
