"""Writes and checks the CRC-32 of every file below a folder.

If a bit flips on storage, reading returns wrong numbers and no error. The check
names the first file that has changed, is cut off or is missing.
"""

import concurrent.futures
import json
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from etils import epath

from cdm.checkpointing import single_files
from cdm.data.files import atomic_files, damaged_file, storage_retry

FILE = 'checksums.json'
_CHUNK_BYTES = 1 << 22
_THREADS = 4  # These work in parallel: zlib releases the interpreter lock.
# To open a file of a network takes about as long as to read so many bytes.
_OPENING_BYTES = 1 << 20

Sum = tuple[int, int]  # size in bytes, CRC-32


class Share(NamedTuple):
  """One of several processes that share the files of a folder."""

  index: int
  count: int


ALONE = Share(0, 1)


class Damaged(damaged_file.DamagedFile):
  """A file is missing or differs from what was written."""


def write(
  folder: str | os.PathLike,
  *,
  leave_out: Collection[str] = (),
  known: Mapping[str, Mapping[str, Sum]] | None = None,
) -> None:
  """Writes FILE with the size and CRC-32 of every other file below `folder`.

  Args:
    folder: path of the folder.
    leave_out: names, relative to the folder, of files that will still change.
    known: {folder in it: the result of `sums` for it}; those files are not
      read again.

  Raises:
    OSError: a file cannot be read, or FILE cannot be written.
  """
  folder = epath.Path(folder)
  known = known or {}
  # Other hosts have written the known folders; here they may not show yet.
  names = [name for name in _files(folder, but=known) if name not in leave_out]
  content = _sums(folder, names)
  for found in known.values():
    content |= found
  content = json.dumps(dict(sorted(content.items())))
  single_files.write_text(folder / FILE, content)


def sums(folder: str | os.PathLike, *, below: str) -> dict[str, Sum]:
  """Returns the size and CRC-32 of every file of one folder in `folder`.

  Args:
    folder: path of the outer folder, to which names are relative.
    below: name of the folder in it; without files if there is no such folder.
  """
  folder = epath.Path(folder)
  if not (folder / below).is_dir():
    return {}
  return _sums(folder, list(_files(folder, below=below)))


def check(
  folder: str | os.PathLike,
  *,
  below: str = '',
  share: Share = ALONE,
) -> bool:
  """Compares the files below `folder` with the checksums that `write` wrote.

  Args:
    folder: path of the folder.
    below: name of a folder in it, to compare only the files in that one.
    share: which of the files this process compares, if several share them.

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
    name: (size, crc)
    for name, (size, crc) in listed.items()
    if not below or name.startswith(f'{below}/')
  }
  if below and not wanted:
    raise Damaged(f'{FILE} lists no file of {below}/')
  wanted = _share(wanted, share)
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


def _share(wanted: dict[str, Sum], share: Share) -> dict[str, Sum]:
  """Returns the files of one process, so that all have about as many bytes."""
  if share.count == 1:
    return wanted
  loads = [0] * share.count
  mine = set()
  for name in sorted(wanted, key=lambda name: (-wanted[name][0], name)):
    process = loads.index(min(loads))
    # Opening a file costs something too.
    loads[process] += wanted[name][0] + _OPENING_BYTES
    if process == share.index:
      mine.add(name)
  return {name: pair for name, pair in wanted.items() if name in mine}


def _files(
  folder: epath.Path, *, below: str = '', but: Collection[str] = ()
) -> Iterator[str]:
  """Yields the relative names of all files below `folder` except FILE.

  Args:
    folder: path of the folder.
    below: name of a folder in it, to name only the files in that one.
    but: names of folders in it whose files are not named.
  """
  for path in (folder / below).iterdir():
    name = f'{below}/{path.name}' if below else path.name
    if path.is_dir():
      if name not in but:
        yield from _files(folder, below=name, but=but)
    elif path.name != FILE and not atomic_files.is_partial(path.name):
      yield name


def _sums(folder: epath.Path, names: Collection[str]) -> dict[str, Sum]:
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    found = pool.map(lambda name: _sum(folder / name), names)
    return dict(zip(names, found, strict=True))


def _sum(path: epath.Path) -> tuple[int, int]:
  """Returns (size in bytes, CRC-32) of a file; tries again, `storage_retry`."""
  return storage_retry.retried(lambda: _read_sum(path), f'Reading {path}')


def _read_sum(path):
  size = crc = 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK_BYTES):
      size += len(chunk)
      crc = zlib.crc32(chunk, crc)
  return size, crc
