"""Tells the results of an interrupted command from other files of their names.

Every PNG that `cdm upscale` writes for a picture file holds a mark, a digest of
all that it depends on. A command that is started again keeps the results with
its own marks. Another file is never replaced unless the user says so.
"""

import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from cdm.data import png_chunks
from cdm.data.files import transient_errors
from cdm.data.printable_name import printable
from cdm.distributed import collectives

MARK = 'cdm'  # name of the text entry of a PNG


def digest(parts: Iterable[str | bytes]) -> str:
  """Returns a digest of a sequence of texts, to be used as a mark."""
  found = hashlib.sha256()
  for part in parts:
    data = part.encode() if isinstance(part, str) else part
    found.update(b'%d:' % len(data) + data)
  return found.hexdigest()


def is_own(path: pathlib.Path, mark: str) -> bool:
  """Returns whether a file is a whole PNG with this mark."""
  if not os.path.isfile(path):
    return False
  try:
    with open(path, 'rb') as file:
      data = file.read(len(png_chunks.SIGNATURE))
      if data != png_chunks.SIGNATURE:
        return False
      data += file.read()
  except OSError as error:
    if transient_errors.not_of_the_file(error):
      raise
    return False
  entry = f'{MARK}\0{mark}'.encode()
  return png_chunks.is_whole(data) and any(
    kind == b'tEXt' and data[start:end] == entry
    for kind, start, end in png_chunks.chunks(data)
  )


def are_written(
  targets: Sequence[pathlib.Path], marks: Sequence[str], *, overwrite: bool
) -> list[bool]:
  """Returns for each result whether an earlier start has written it.

  Every process looks at a part of them, and all get the same answers. This is a
  collective: every process must call it.

  Args:
    targets: paths of the results.
    marks: mark of each.
    overwrite: whether other files of these names will be replaced.

  Raises:
    ValueError: another file has the name of a result, and `overwrite` is False.
  """
  looked = [
    [is_own(targets[i], marks[i]), os.path.lexists(targets[i])]
    for i in collectives.local_indices(len(targets))
  ]
  found = collectives.in_turn(collectives.gather_objects(looked))
  own, there = np.array(found, bool).reshape(-1, 2).T
  foreign = there & ~own & (not overwrite)
  refuse(targets[i] for i in np.flatnonzero(foreign))
  return [bool(flag) for flag in own]


def which_stay(
  targets: Sequence[pathlib.Path],
  found: Sequence[Sequence[bool]],
  *,
  overwrite: bool,
) -> list[bool]:
  """Returns which results are there already, and stay.

  Args:
    targets: paths of the results.
    found: (whether it is the result, whether there is a file) of each.
    overwrite: whether other files of these names will be replaced.

  Raises:
    ValueError: another file has the name of a result.
  """
  refuse(
    path
    for path, (own, exists) in zip(targets, found, strict=True)
    if exists and not own and not overwrite
  )
  return [own for own, _ in found]


def refuse(paths: Iterable[pathlib.Path]) -> None:
  """Raises ValueError about files that would be overwritten, if there are any.

  Args:
    paths: the files.
  """
  paths = list(paths)
  if paths:
    more = f' and {len(paths) - 1:,} more' if len(paths) > 1 else ''
    raise ValueError(
      f'{printable(paths[0])}{more} would be overwritten; give another --out, '
      'or --overwrite to replace what is there.'
    )


def free_path(
  folder: pathlib.Path,
  name: str,
  *,
  taken: Iterable[pathlib.Path],
  mark: str,
  overwrite: bool,
) -> pathlib.Path:
  """Returns a path in a folder that neither a result nor another file has.

  Args:
    folder: the folder.
    name: name to begin with; the next are NAME-2, NAME-3 and so on.
    taken: paths of the results.
    mark: mark of the file; one that was written with this mark is replaced.
    overwrite: whether another file that is no result may be replaced.
  """
  results = {str(path).casefold() for path in taken}
  stem, suffix = os.path.splitext(name)
  for n in itertools.count(1):
    path = folder / (name if n == 1 else f'{stem}-{n}{suffix}')
    if str(path).casefold() in results or path.is_dir():
      continue
    if overwrite or not os.path.lexists(path) or is_own(path, mark):
      return path
  raise AssertionError('Every name is taken.')
