"""Keeps the list of a folder's pictures, so that a start need not walk it.

A folder of 1.28 million files in a thousand folders takes minutes to walk on a
network disk, and every process of a run would walk it. The list is kept in the
folder itself, FOLDER/.cdm-index, or elsewhere if that cannot be written. It is
used again while no folder has another modification time: one question for each
folder instead of one for each file. What a folder holds shows in that time;
where a link leads within a file's own name does not.

Object storage that is mounted as a folder tells no such times. There one
process walks, and the others of the same run take its list by its digest.
"""

import contextlib
import contextvars
import gzip
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypedDict

from absl import logging

from cdm.data import picture_files
from cdm.data.files import atomic_files, json_file
from cdm.data.files.damaged_file import DamagedFile

FOLDER = picture_files.INDEX_FOLDER
LEAST_FILES = 10_000  # a smaller folder is walked as fast as a list is read
# Times of files count in ticks, of seconds on some disks: a change in the tick
# in which a folder was read would not show.
SETTLED_S = 2.0
_FILE = 'pictures.json.gz'


class _Index(TypedDict):
  """The contents of the file.

  Attributes:
    digest: of the list of files.
    settled: whether every folder was left alone for a while when it was read,
      so that its time tells whether it has changed since.
    folders: {relative path: modification time, ns}.
    files: see `picture_files.Listing`.
    left_out: see `picture_files.Listing`.
  """

  digest: str
  settled: bool
  folders: dict[str, int]
  files: list[str]
  left_out: dict[str, int]


class Places(NamedTuple):
  """Where lists are kept, beside the folder itself, and which one is trusted.

  Attributes:
    elsewhere: returns a folder for lists of folders that cannot be written, or
      raises OSError; None keeps no such list.
    trusted: digest of the list that another process of this run has just made;
      None trusts none without looking.
  """

  elsewhere: Callable[[], str | os.PathLike[str]] | None = None
  trusted: str | None = None


_places: contextvars.ContextVar[Places | None] = contextvars.ContextVar(
  'places', default=None
)


@contextlib.contextmanager
def using(places: Places) -> Generator[None]:
  """Context manager in which `list_pictures` uses these places."""
  token = _places.set(places)
  try:
    yield
  finally:
    _places.reset(token)


def places() -> Places:
  """Returns the places of `using`, or those without any."""
  return _places.get() or Places()


def list_pictures(
  root: str | os.PathLike[str],
) -> tuple[picture_files.Listing, str | None]:
  """Lists a folder as `picture_files` does, from a kept list if there is one.

  Args:
    root: the folder.

  Returns:
    (listing, its digest), the digest None for a folder of few files.

  Raises:
    ValueError: the folder cannot be read.
  """
  root, given = os.fspath(root), places()
  # Where the folder can be written, its list is there and nowhere else.
  writable = os.access(root, os.W_OK)
  for path in _candidates(root, Places() if writable else given):
    index = _read(path)
    if index is not None and _holds(index, root, given.trusted):
      files = tuple(index['files'])
      return picture_files.Listing(files, index['left_out']), index['digest']
  began = time.time_ns()
  folders: dict[str, int | None] = {}
  listing = picture_files.list_pictures(root, folders)
  if len(listing.files) < LEAST_FILES:
    return listing, None
  digest = hashlib.sha256()
  for file in listing.files:
    digest.update(f'{file}\0'.encode(errors='surrogateescape'))
  known = {name: at for name, at in folders.items() if at is not None}
  index: _Index = {
    'digest': digest.hexdigest()[:32],
    'settled': len(known) == len(folders)
    and max(known.values()) < began - SETTLED_S * 1e9,
    'folders': known,
    'files': list(listing.files),
    'left_out': listing.left_out,
  }
  _keep(index, root, given)
  return listing, index['digest']


def _own(root):
  return pathlib.Path(root, FOLDER)


def _candidates(root, places) -> list[pathlib.Path]:
  """Returns the files in which a list of a folder may be kept."""
  found = [_own(root) / _FILE]
  if places.elsewhere is not None:
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    with contextlib.suppress(OSError):
      found.append(pathlib.Path(places.elsewhere(), f'{name}.json.gz'))
  return found


def _read(path) -> _Index | None:
  """Returns a kept list; None if there is none, or it is damaged."""
  try:
    data = gzip.decompress(path.read_bytes())
    index = json_file.parse(data, _Index, name=str(path), remedy='')
  except (OSError, EOFError, ValueError, DamagedFile):
    return None
  inside = all(map(_is_inside, (*index['files'], *index['folders'])))
  return index if inside and index['files'] else None


def _is_inside(name):
  return not name.startswith('/') and (
    '..' not in name or '..' not in name.split('/')
  )


def _holds(index, root, trusted):
  """Returns whether a kept list is that of the folder as it is now."""
  if trusted is not None and index['digest'] == trusted:
    return True
  if not index['settled']:
    return False
  try:
    return all(
      os.stat(os.path.join(root, name)).st_mtime_ns == at
      for name, at in index['folders'].items()
    )
  except (OSError, ValueError):
    return False


def _keep(index: _Index, root: str, places: Places) -> None:
  """Keeps a list in the first place that can be written."""
  reasons: list[Any] = []
  for path in _candidates(root, places):
    try:
      if not path.parent.is_dir():
        path.parent.mkdir(parents=path.parent != _own(root), exist_ok=True)
        if path.parent == _own(root):
          # That has changed the folder's time: the next start walks once more.
          index['settled'] = False
      data = gzip.compress(json.dumps(index).encode(), 3)
      with atomic_files.write_atomically(path) as partial:
        partial.write_bytes(data)
      return
    except OSError as error:
      reasons.append(error)
  logging.warning(
    'The list of %d files of %s cannot be kept, so that each start walks the '
    'folder: %s',
    len(index['files']),
    root,
    '; '.join(map(str, reasons)),
  )
