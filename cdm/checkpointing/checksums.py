"""Writes and checks the CRC-32 of every file below a folder.

If a bit flips on storage, reading returns wrong numbers and no error. The check
names the first file that has changed, is cut off or is missing.
"""

import concurrent.futures
import json
import os
import zlib
from collections.abc import Collection, Iterator

from etils import epath

from cdm.checkpointing import single_files
from cdm.data.files import atomic_files, damaged_file

FILE = 'checksums.json'
_CHUNK_BYTES = 1 << 22
_THREADS = 4  # These work in parallel: zlib releases the interpreter lock.


class Damaged(damaged_file.DamagedFile):
  """A file is missing or differs from what was written."""


def write(
  folder: str | os.PathLike, *, leave_out: Collection[str] = ()
) -> None:
  """Writes FILE with the size and CRC-32 of every other file below `folder`.

  Args:
    folder: path of the folder.
    leave_out: names, relative to the folder, of files that will still change.

  Raises:
    OSError: a file cannot be read, or FILE cannot be written.
  """
  folder = epath.Path(folder)
  names = sorted(set(_files(folder)) - set(leave_out))
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    sums = pool.map(lambda name: _sum(folder / name), names)
    content = json.dumps(dict(zip(names, sums, strict=True)))
  single_files.write_text(folder / FILE, content)


def check(folder: str | os.PathLike, *, below: str = '') -> bool:
  """Compares the files below `folder` with the checksums that `write` wrote.

  Args:
    folder: path of the folder.
    below: name of a folder in it, to compare only the files in that one.

  Returns:
    True if all files match; False if the folder has no FILE to compare with.

  Raises:
    Damaged: names the first file that differs or is missing.
  """
  folder = epath.Path(folder)
  path = folder / FILE
  if not path.exists():
    return False
  try:
    listed = single_files.read_json(path, dict[str, tuple[int, int]], remedy='')
  except damaged_file.DamagedFile as error:
    raise Damaged(f'{FILE} cannot be read') from error
  wanted = {
    name: tuple(pair)
    for name, pair in listed.items()
    if not below or name.startswith(f'{below}/')
  }
  if below and not wanted:
    raise Damaged(f'{FILE} lists no file of {below}/')
  # Sizes come first: comparing them is free and reveals most damage.
  for name, (size, _) in wanted.items():
    size_now = single_files.size(folder / name)
    if size_now is None:
      raise Damaged(f'{name} is missing')
    if size_now != size:
      raise Damaged(f'{name} has {size_now} of {size} bytes')
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    sums = pool.map(lambda name: _sum(folder / name), wanted)
    for (name, expected), actual in zip(wanted.items(), sums, strict=True):
      if actual != expected:
        raise Damaged(f'{name} has another CRC-32 than when it was written')
  return True


def _files(folder: epath.Path) -> Iterator[str]:
  """Yields the relative names of all files below `folder` except FILE."""
  for path in folder.iterdir():
    if path.is_dir():
      yield from (f'{path.name}/{name}' for name in _files(path))
    elif path.name != FILE and not atomic_files.is_partial(path.name):
      yield path.name


def _sum(path: epath.Path) -> tuple[int, int]:
  """Returns (size in bytes, CRC-32) of a file."""
  size = crc = 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK_BYTES):
      size += len(chunk)
      crc = zlib.crc32(chunk, crc)
  return size, crc
