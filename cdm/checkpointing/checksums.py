"""CRC-32 of every file below a folder, to tell later if one has changed.

Storage answers a flipped bit with the wrong numbers and no error; a file that
was cut off or lost is found here too, and named.
"""

import concurrent.futures
import json
import pathlib
import zlib

from cdm.reporting import atomic_files

FILE = 'checksums.json'
_CHUNK_BYTES = 1 << 22
_THREADS = 4  # zlib computes without holding the interpreter


class Damaged(ValueError):
  """A file is not what was written."""


def write(folder, *, leave_out=()):
  """Writes FILE with size and CRC-32 of every other file below `folder`.

  Args:
    folder: path.
    leave_out: names relative to it that will still change.

  Raises:
    OSError: if it cannot be read or written.
  """
  folder = pathlib.Path(folder)
  names = sorted(set(_files(folder)) - set(leave_out))
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    sums = pool.map(lambda name: _sum(folder / name), names)
    content = json.dumps(dict(zip(names, sums, strict=True)))
  atomic_files.write_text_atomically(folder / FILE, content)


def check(folder):
  """Compares the files below `folder` with what `write` saw.

  Returns:
    False if the folder has no FILE, so that nothing is known; else True.

  Raises:
    Damaged: naming the first file that differs or is missing.
  """
  folder = pathlib.Path(folder)
  path = folder / FILE
  if not path.exists():
    return False
  try:
    wanted = {name: tuple(pair) for name, pair in _read(path).items()}
  except (ValueError, AttributeError, TypeError) as error:
    raise Damaged(f'{FILE} cannot be read') from error
  # Sizes first: they cost nothing and tell most damage.
  for name, (size, _) in wanted.items():
    if not (folder / name).is_file():
      raise Damaged(f'{name} is missing')
    found = (folder / name).stat().st_size
    if found != size:
      raise Damaged(f'{name} has {found} bytes of {size}')
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    sums = pool.map(lambda name: _sum(folder / name), wanted)
    for (name, pair), found in zip(wanted.items(), sums, strict=True):
      if found != pair:
        raise Damaged(f'{name} is not what was written (CRC-32)')
  return True


def _read(path):
  return json.loads(path.read_text())


def _files(folder):
  mine = (FILE, atomic_files.partial_name(FILE))
  for path in folder.rglob('*'):
    if path.is_file() and path.name not in mine:
      yield str(path.relative_to(folder))


def _sum(path):
  """-> (bytes, CRC-32) of a file."""
  size = crc = 0
  with open(path, 'rb') as file:
    while chunk := file.read(_CHUNK_BYTES):
      size += len(chunk)
      crc = zlib.crc32(chunk, crc)
  return size, crc
