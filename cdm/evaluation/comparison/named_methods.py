"""Reads which methods a comparison is of: names, work directories, folders.

bicubic, nearest, nearest-neighbour   need no training
NAME                                  the stage in RUNS/NAME
NAME=DIR                              the stage in DIR, or images in DIR that
                                      another program has made
"""

import pathlib
import re
from typing import NamedTuple

from cdm.checkpointing import reader
from cdm.data.printable_name import printable

UNTRAINED = ('nearest', 'bicubic', 'nearest_neighbour')
STAGE, FILES = 'stage', 'files'
# A name is that of a folder of the output too.
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')


class NamedMethod(NamedTuple):
  """One method of a comparison.

  Attributes:
    name: its name, which is unique.
    kind: one of `UNTRAINED`, `STAGE` or `FILES`.
    path: work directory of the stage, or folder of the images; None for a
      method without training.
  """

  name: str
  kind: str
  path: pathlib.Path | None = None


def parse(text: str, runs: pathlib.Path | None) -> list[NamedMethod]:
  """Parses `--methods`.

  Args:
    text: names with commas between them, see the module.
    runs: the folder with a work directory for every NAME, or None.

  Raises:
    ValueError: a name is given twice, is no name, or stands for nothing.
  """
  found: dict[str, NamedMethod] = {}
  for part in text.split(','):
    name, equals, path = part.strip().partition('=')
    if not _NAME.fullmatch(name):
      raise ValueError(
        f'--methods has {printable(part)!r}; names of letters, digits, . - and '
        '_ were expected, with commas between them, or NAME=DIR.'
      )
    method = _named(name, path if equals else None, runs)
    if method.name in found:
      raise ValueError(
        f'--methods has {name} twice; give one of them another name with '
        'NAME=DIR.'
      )
    found[method.name] = method
  return list(found.values())


def _named(name, path, runs) -> NamedMethod:
  plain = name.lower().replace('-', '_')
  if path is None and plain in UNTRAINED:
    return NamedMethod(plain, plain)
  if path is not None:
    folder = pathlib.Path(path).expanduser()
  elif runs is None:
    raise ValueError(
      f'--methods has {name}, which has to be trained: give the folder of the '
      f'work directories as --workdir=RUNS, or {name}=DIR.'
    )
  else:
    folder = runs / name
  if not folder.is_dir():
    raise ValueError(
      f'--methods has {name}, but {printable(folder)} is not there. Train it '
      'first, or leave it out.'
    )
  if reader.folder(folder).is_dir():
    return NamedMethod(name, STAGE, folder)
  if path is None:
    raise ValueError(
      f'--methods has {name}, but {printable(folder)} has no checkpoint. Train '
      'it first, or leave it out.'
    )
  return NamedMethod(name, FILES, folder)
