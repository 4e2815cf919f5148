"""Finds pictures by the names that a list of them gives.

A list names pictures by their paths, or leaves out the folders, the suffix, or
both, as Kaggle's tables do. All lines of one list do it in the same way.
"""

import os
from collections.abc import Callable, Iterable, Sequence

from cdm.data.printable_name import printable

_SEVERAL = -1  # in a table: pictures that the list cannot tell apart


def _stem(file: str) -> str:
  return os.path.splitext(file)[0]


# The ways in which a list may name a picture, the most exact first.
_WAYS: tuple[Callable[[str], str], ...] = (
  str,
  _stem,
  lambda file: file.rpartition('/')[2],
  lambda file: _stem(file.rpartition('/')[2]),
)


def table(
  files: Sequence[str], candidates: Iterable[str]
) -> dict[str, int] | None:
  """Returns a table by which a list names pictures, from one of its lines.

  Args:
    files: the paths of all pictures, with forward slashes.
    candidates: what may be the name of a picture in the first line of the list.

  Returns:
    {name: index of the picture}, in the most exact way that has one of the
    candidates; None if no way has.
  """
  wanted = {_plain(name) for name in candidates}
  for way in _WAYS:
    if any(way(file) in wanted for file in files):
      found: dict[str, int] = {}
      for i, file in enumerate(files):
        name = way(file)
        found[name] = _SEVERAL if name in found else i
      return found
  return None


def holds(names: dict[str, int], name: str) -> bool:
  """Returns whether a table has a name."""
  return _plain(name) in names


def lines_of(
  files: Sequence[str],
  names: dict[str, int] | None,
  lines: Sequence[tuple[int, str]],
  listing: str,
  *,
  others: bool = False,
  line: str = 'Line',
) -> list[int]:
  """Returns for every picture which line of a list names it.

  Args:
    files: the paths of all pictures.
    names: see `table`; None if no line of the list names a picture.
    lines: (number of the line, name that it gives) of every line.
    listing: names the list in an error.
    others: whether lines may name pictures that are not among these.
    line: what the list calls an entry.

  Returns:
    For every picture an index into `lines`.

  Raises:
    ValueError: a line names no picture, several, or one that an earlier line
      names already; or a picture is in no line.
  """
  names = names or {}
  found = [-1] * len(files)
  for n, (number, name) in enumerate(lines):
    i = names.get(_plain(name))
    place = f'{line} {number} of {listing} names {printable(name)}'
    if i is None:
      if others:
        continue
      raise ValueError(
        f'{place}, which is none of the {len(files):,} pictures (the first is '
        f'{printable(files[0])}). Give a list of these pictures alone.'
      )
    if i == _SEVERAL:
      raise ValueError(
        f'{place}, and several pictures have that name. Write the paths of the '
        'pictures, with folders and suffixes, into the list.'
      )
    if found[i] >= 0:
      raise ValueError(
        f'{place}, which {line.lower()} {lines[found[i]][0]} names already. '
        'Give every picture one line.'
      )
    found[i] = n
  if -1 in found:
    raise ValueError(
      f'{listing} has no line for {printable(files[found.index(-1)])}: it has '
      f'{len(lines):,} lines for {len(files):,} pictures. Give every picture '
      'one line.'
    )
  return found


def _plain(name: str) -> str:
  return name.removeprefix('./')
