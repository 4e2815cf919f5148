"""Reads a text file that lists something of every picture, a line each."""

import os

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

_HEAD = 4096  # bytes that show what kind of file it is
_LFS = b'version https://git-lfs'


def read_lines(
  path: str | os.PathLike[str], remedy: str
) -> list[tuple[int, str]]:
  """Returns (number, text) of every line that is not blank.

  Args:
    path: the file.
    remedy: last sentence of an error: what to give instead.

  Raises:
    DamagedFile: it is not a text file, or has no lines.
    ValueError: it does not exist or cannot be read.
  """
  path = os.path.expanduser(os.fspath(path))
  shown = printable(path)
  try:
    with open(path, 'rb') as file:
      data = file.read(_HEAD)
      why = _why_not_text(data)
      data = data if why else data + file.read()
  except OSError as error:
    raise ValueError(f'{shown}: {error.strerror}. {remedy}') from error
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    why = why or f'its byte {error.start:,} is not UTF-8'
  if why:
    raise DamagedFile(f'{shown} is not a text file: {why}. {remedy}')
  lines = [
    (number, line.rstrip('\r'))
    for number, line in enumerate(text.split('\n'), 1)
    if line.strip()
  ]
  if not lines:
    raise DamagedFile(f'{shown} has no lines. {remedy}')
  return lines


def _why_not_text(head: bytes) -> str | None:
  """Returns what the first bytes of a file show that is no list, or None."""
  if b'\0' in head:
    return 'it has a NUL byte'
  if head.startswith(_LFS):
    return 'it is a Git LFS pointer, and the data is elsewhere (git lfs pull)'
  if head.lstrip()[:9].lower().startswith((b'<!doctype', b'<html')):
    return 'it is a page of HTML'
  return None
