"""Finds out in which form a path holds images, by a cheap look at it."""

import json
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from cdm.data import record_format, unread_files


def kind_of(path: str, sources: Mapping[str, Any]) -> str | None:
  """Returns the `train_data.kind` that reads what lies at a path.

  A folder that is of no other form is one of pictures.

  Args:
    path: a file, a folder, or a pattern of the names of shards.
    sources: {kind: class of source}. A class that reads files of its own has a
      static method `holds`, which takes a look at a path.

  Returns:
    The kind; None if the path is not there, or a file of no known form.
  """
  if record_format.find_folder(path) is not None:
    return 'array_records'
  for kind, source in sources.items():
    holds = getattr(source, 'holds', None)
    if holds is not None and holds(path):
      return kind
  if os.path.isdir(path):
    return 'folder'
  if path.lower().endswith('.npz') and os.path.isfile(path):
    return 'archive'
  return None


def section(path: str, sources: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the section `train_data` of a config that reads a path.

  Args:
    path, sources: see `kind_of`.

  Raises:
    ValueError: nothing of a known form is there. The message says what is, and
      what to do.
  """
  path = os.path.expanduser(path)
  kind = kind_of(path, sources)
  if kind is None:
    raise ValueError(unread_files.refusal(path))
  if kind == 'folder':
    _refuse_tfds(path)
  return {'kind': kind, 'path': path}


def _refuse_tfds(path: str) -> None:
  """Refuses the folder in which TensorFlow Datasets keeps a data set."""
  try:
    text = (pathlib.Path(path) / 'dataset_info.json').read_text(
      encoding='utf-8'
    )
    info = json.loads(text)
    name, version = info['name'], info['version']
    config = info.get('configName') or info.get('config_name')
    depth = 2 if config is None else 3
    data_dir = pathlib.Path(path).resolve().parents[depth - 1]
  except (OSError, ValueError, TypeError, LookupError):
    return
  if not (pathlib.Path(path) / 'features.json').is_file():
    return
  full = f'{name}/{config}:{version}' if config else f'{name}:{version}'
  source = shlex.quote(f'tfds:{full}:train')
  raise ValueError(
    f'{path!r} is a data set of TensorFlow Datasets. Give --source={source} '
    f'--data_dir={shlex.quote(str(data_dir))}, or another of its splits '
    f'({", ".join(_splits(info))}).'
  )


def _splits(info: dict[str, Any]) -> list[str]:
  splits = info.get('splits')
  names = [split.get('name') for split in splits or () if split]
  return [str(name) for name in names] or ['train']
