"""Reads map_clsloc.txt, which numbers the classes of downsampled ImageNet.

Its lines are such as 'n02119789 1 kit_fox'. The numbers run from 1 on, in an
order that is not that of the WordNet ids.
"""

import os
import pathlib
import re

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

FILE = 'map_clsloc.txt'
_LINE = re.compile(r'(n\d{8})\s+(\d{1,6})(?:\s+\S.*)?')
_MOST_BYTES = 1 << 20


def read(path: str | os.PathLike[str]) -> tuple[str, ...]:
  """Returns the WordNet ids of the classes 1, 2, 3, ...

  Raises:
    DamagedFile: the file is not such a list.
    OSError: it cannot be read.
  """
  with open(pathlib.Path(path), 'rb') as file:
    text = file.read(_MOST_BYTES).decode(errors='replace')
  found: dict[int, str] = {}
  for number, line in enumerate(text.splitlines(), 1):
    if not line.strip():
      continue
    match = _LINE.fullmatch(line.strip())
    if not match:
      raise _refusal(path, f'line {number} is {printable(line[:60])!r}')
    if int(match[2]) in found:
      raise _refusal(path, f'line {number} numbers {match[2]} again')
    found[int(match[2])] = match[1]
  count = len(found)
  missing = next((n for n in range(1, count + 1) if n not in found), None)
  if missing is not None or not count:
    raise _refusal(path, f'it has {count} lines, and no class {missing or 1}')
  if len(set(found.values())) != count:
    raise _refusal(path, 'it names a class twice')
  return tuple(found[n] for n in range(1, count + 1))


def _refusal(path, reason) -> DamagedFile:
  return DamagedFile(
    f'{printable(path)} is no table of the classes of downsampled ImageNet: '
    f"{reason}; lines such as 'n02119789 1 kit_fox' were expected, numbered "
    f'from 1 on. Take {FILE} from the development kit of ImageNet.'
  )
