"""Finds the files of one split in a folder of numbered files.

Large sets are distributed as files that are numbered and say how many they are,
such as train-00000-of-00294.parquet, often several splits in one folder. A
split is chosen by the words before the number, and a missing number is noticed.
"""

import os
import pathlib
import re
from collections.abc import Callable, Iterator

from cdm.data import picture_files
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable
from cdm.data.source import first_names

_MOST_LOOKED_AT = 10_000  # entries
_DEEPEST = 3  # folders: the copies of Hugging Face have DATA/CONFIG/SPLIT
_NUMBER = re.compile(r'[-_.]?\d{4,}.*$', re.DOTALL)
_OF = re.compile(r'(?<!\d)(\d{4,})-of-(\d{4,})(?!\d)')
# The last of these folders in a path names no split.
_NO_SPLITS = ('', 'data', 'default', '.')


def list_files(
  path: str | os.PathLike[str], is_shard: Callable[[str], bool]
) -> list[str]:
  """Returns the paths of the shards in a folder and below it, sorted.

  Hidden folders are left out. A folder that several links lead to counts once.

  Args:
    path: the folder.
    is_shard: whether a file of this name is one.
  """
  return sorted(_walk(os.fspath(path), is_shard, _DEEPEST, set()))


def has_any(
  path: str | os.PathLike[str], is_shard: Callable[[str], bool]
) -> bool:
  """Returns whether a folder is one of shards, by a short look; never raises.

  A table beside the pictures that it describes does not make a folder of
  pictures one of shards, so shards must be no fewer than the pictures beside
  them. Of a large folder only the first entries are looked at.

  Args:
    path: the folder.
    is_shard: whether a file of this name is a shard.
  """
  folders, looked_at = [(os.fspath(path), 0)], 0
  for folder, level in folders:  # It grows meanwhile.
    shards = pictures = 0
    try:
      with os.scandir(folder) as entries:
        for entry in entries:
          looked_at += 1
          if looked_at > _MOST_LOOKED_AT:
            break
          if entry.name.startswith('.'):
            continue
          if entry.is_dir() and level < _DEEPEST:
            folders.append((entry.path, level + 1))
          elif is_shard(entry.name) and entry.is_file():
            shards += 1
          elif picture_files.has_suffix(entry.name):
            pictures += 1
    except (OSError, ValueError):
      continue
    if shards and shards >= pictures:
      return True
    if looked_at > _MOST_LOOKED_AT:
      return False
  return False


def _walk(folder, is_shard, levels, seen) -> Iterator[str]:
  status, below = os.stat(folder), []
  if (status.st_dev, status.st_ino) in seen:
    return
  seen.add((status.st_dev, status.st_ino))
  with os.scandir(folder) as entries:
    for entry in entries:
      if entry.name.startswith('.'):
        continue
      if entry.is_dir():
        below.append(entry.path)
      elif is_shard(entry.name) and entry.is_file():
        yield entry.path
  if levels:
    for path in sorted(below):
      yield from _walk(path, is_shard, levels - 1, seen)


def split_of(path: str | os.PathLike[str], root: str) -> str:
  """Returns the split that a file says it is of; '' if it says none.

  It is the words before the number in its name, or the name of its folder if
  the number is all of its name. A folder that may be a configuration of the
  data set stands before it: 'faces/train'.
  """
  relative = pathlib.PurePath(os.path.relpath(path, root))
  stem = relative.name.partition('.')[0]
  words = [w for w in relative.parent.parts if w not in _NO_SPLITS]
  return '/'.join([*words, *filter(None, [_NUMBER.sub('', stem)])])


def choose(
  path: str | os.PathLike[str],
  files: list[str],
  split: str | None,
  *,
  is_whole: bool = True,
) -> list[str]:
  """Returns the files of one split, in the order of their names.

  Args:
    path: the folder, for `split_of` and for errors.
    files: the paths of all files in it.
    split: the split, as `split_of` or the last word of it; None takes the only
      one.
    is_whole: whether files that the others count must be among them.

  Raises:
    ValueError: there is no such split, or several and none is chosen.
    DamagedFile: files are missing.
  """
  root, by_split = os.fspath(path), {}
  for file in files:
    by_split.setdefault(split_of(file, root), []).append(file)
  known = tuple(sorted(by_split))
  if split is None:
    if len(known) > 1:
      raise ValueError(
        f'{printable(root)} holds the splits {first_names(known)}. Choose one '
        f'with split={"train" if "train" in known else known[0]!r}.'
      )
    chosen = list(known)
  else:
    chosen = [
      name
      for name in known
      if name == split or name.rpartition('/')[2] == split
    ]
    if split in chosen:
      chosen = [split]
    if len(chosen) != 1:
      which = f'several splits {split!r}' if chosen else f'no split {split!r}'
      raise ValueError(
        f'{printable(root)} has {which}; it has {first_names(known)}. Give one '
        'of these as split.'
      )
  found = by_split[chosen[0]]
  if is_whole:
    _check_complete(root, found)
  return found


def _check_complete(root, files):
  """Raises DamagedFile if a number of '00000-of-00294' is missing."""
  numbers: dict[int, set[int]] = {}
  for file in files:
    match = _OF.search(os.path.basename(file))
    if match:
      numbers.setdefault(int(match[2]), set()).add(int(match[1]))
  for count, there in numbers.items():
    missing = [n for n in range(min(count, 10**6)) if n not in there]
    if missing:
      raise DamagedFile(
        f'{printable(root)} has {len(there)} of the {count} files that the '
        f'name of {printable(os.path.basename(files[0]))} promises; the first '
        f'missing one is number {missing[0]}. Download the others, or give one '
        'file alone as path.'
      )
