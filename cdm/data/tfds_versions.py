"""Finds the versions of a TFDS data set that are on disk, old ones too.

tensorflow-datasets (TFDS) opens the newest version that its code knows. A set
that was built years ago is then called not prepared, although it is there.
"""

import os
import pathlib
import re
from typing import Any

from cdm.data import shell_commands

_VERSION = re.compile(r'\d+\.\d+\.\d+')
INFO = 'dataset_info.json'
FEATURES = 'features.json'


def built(builder: Any) -> list[str]:
  """Returns the versions beside that of a builder, the newest first."""
  folder = pathlib.Path(os.fspath(builder.data_dir)).parent
  try:
    names = os.listdir(folder)
  except OSError:
    return []
  own = os.path.basename(os.fspath(builder.data_dir))
  found = [
    name
    for name in names
    if name != own
    and _VERSION.fullmatch(name)
    and (folder / name / INFO).is_file()
  ]
  return sorted(found, key=lambda v: [int(n) for n in v.split('.')])[::-1]


def named(name: str, version: str) -> str:
  """Returns the name of a data set with another version."""
  return f'{name.partition(":")[0]}:{version}'


def other_version(name: str, builder: Any) -> str:
  """Returns a sentence about a version that is on disk, or ''.

  Args:
    name: the name that was asked for.
    builder: of a version that is not prepared.
  """
  versions = built(builder)
  if not versions:
    return ''
  other = named(name, versions[0])
  return (
    f'The version {versions[0]} is there. Its images may differ from those of '
    f'{builder.version}: {_differences(builder, versions[0])}. To use it, set '
    f'--config.train_data.name={other} and --config.eval_data.name={other}, or '
    f'--source=tfds:{other}:SPLIT of `cdm prepare`. For the newest version: '
  )


def _differences(builder: Any, version: str) -> str:
  """Returns what the data set says of the versions after this one."""
  first = [int(n) for n in version.split('.')]
  notes = getattr(builder, 'RELEASE_NOTES', None) or {}
  later = [
    f'{other}: {" ".join(str(text).split()).rstrip(".")}'
    for other, text in sorted(notes.items())
    if _VERSION.fullmatch(other) and [int(n) for n in other.split('.')] > first
  ]
  return '; '.join(later) or 'its code does not say how'


def folder_of(
  tfds: Any, name: str, data_dir: str | os.PathLike[str] | None
) -> pathlib.Path:
  """Returns the version folder of a data set that is named with its version.

  Args:
    tfds: the module tensorflow_datasets.
    name: 'NAME:VERSION' or 'NAME/CONFIG:VERSION'.
    data_dir: where TFDS keeps data sets; None is its default.
  """
  root = os.fspath(data_dir or tfds.core.constants.DATA_DIR)
  plain, _, version = name.partition(':')
  return pathlib.Path(root, plain, version or '-').expanduser()


def without_features(folder: str | os.PathLike[str], name: str) -> str | None:
  """Returns what helps a data set that TFDS built before version 4.

  It lacks the file from which TFDS restores it; the code of the data set can
  write it.

  Args:
    folder: the version folder of the data set.
    name: its name.

  Returns:
    A sentence with a command, or None if the file is there.
  """
  place = pathlib.Path(os.fspath(folder))
  if not (place / INFO).is_file() or (place / FEATURES).is_file():
    return None
  plain = name.partition(':')[0]
  code = (
    'import tensorflow_datasets as tfds; '
    f'tfds.builder({plain!r}, data_dir={os.devnull!r})'
    f'.info.features.save_config({str(place)!r})'
  )
  return (
    f'The data set in {place} was built by a version of tensorflow-datasets '
    f'before 4 and has no {FEATURES}. Write that file, and start again: '
    f'{shell_commands.run("-c", code)}'
  )
