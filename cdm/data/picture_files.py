"""Lists the picture files of a folder and counts what else lies in it.

Every command lists folders here, so that all of them agree on what a picture
file is: a file whose name ends in one of `SUFFIXES`, in a folder or below it.

What is hidden is left out, and so is whatever is not a file: pipes, devices,
sockets, links that lead nowhere and folders with the name of a picture file.
Reading a pipe would wait forever.

Links to files and folders are followed. A link to a folder that the link itself
lies in is left out, because it would never end. Below each of the first-level
folders, which may be classes, every folder is read once, however many links
lead to it: two links in each of thirty folders would make a thousand million
paths.
"""

import collections
import functools
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from absl import logging

from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.printable_name import printable

SUFFIXES = (
  '.avif', '.bmp', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm',
  '.png', '.pnm', '.ppm', '.tif', '.tiff', '.webp',
)  # fmt: skip
# Folders that programs leave behind. Their names do not start with a dot, but
# what is in them is hidden or a thumbnail.
_HIDDEN = ('__MACOSX', '@eaDir', '$RECYCLE.BIN')
_MOST_KINDS = 8  # in one message
INDEX_FOLDER = '.cdm-index'  # of cdm itself, see `folder_index`; not counted


class Listing(NamedTuple):
  """The picture files of a folder.

  Attributes:
    files: their paths relative to the folder, with forward slashes, in order.
    left_out: {kind: how many there are of what was left out}. A kind is a
      suffix, such as '.txt', or a word, such as 'pipe'.
  """

  files: tuple[str, ...]
  left_out: dict[str, int]

  def left_out_text(self) -> str:
    """Returns 'left out 5 entries: .txt (4), pipe (1)', or ''."""
    if not self.left_out:
      return ''
    kinds = sorted(self.left_out.items(), key=lambda kind: (-kind[1], kind[0]))
    shown = [f'{printable(k)} ({n:,})' for k, n in kinds[:_MOST_KINDS]]
    if len(kinds) > _MOST_KINDS:
      shown.append(f'{len(kinds) - _MOST_KINDS} other kinds')
    total = sum(self.left_out.values())
    entries = 'entry' if total == 1 else 'entries'
    return f'left out {total:,} {entries}: {", ".join(shown)}'


def has_suffix(name: str | os.PathLike[str]) -> bool:
  """Returns whether a name ends as that of a picture file."""
  return os.fspath(name).lower().endswith(SUFFIXES)


def list_pictures(
  root: str | os.PathLike[str],
  folders: dict[str, int | None] | None = None,
  *,
  also: tuple[str, ...] = (),
) -> Listing:
  """Lists the picture files in a folder and below it, ordered by path.

  Args:
    root: the folder.
    folders: gets {path relative to the root: modification time, ns} of every
      folder that is read, as of before it was; None for one that cannot be.
    also: further suffixes of files that are listed.

  Raises:
    ValueError: the folder cannot be read.
  """
  root = os.fspath(root)
  left_out = collections.Counter()
  folders = {} if folders is None else folders
  try:
    folders[''] = os.stat(root).st_mtime_ns
    entries = _entries(root)
  except OSError as error:
    if not_of_the_file(error):
      raise
    raise ValueError(
      f'{printable(root)} cannot be listed as a folder of pictures: '
      f'{error.strerror}.'
    ) from error
  top = _Folder('', os.path.realpath(root), (), also)
  files = []
  for entry in entries:
    name = _picture(entry, top, left_out)
    if name is not None:
      files.append(name)
    for folder in _subfolder(entry, top, left_out):
      files += _walk(root, folder, left_out, folders)
  return Listing(tuple(sorted(files)), dict(left_out))


@functools.cache  # A command may list a folder several times.
def say_left_out(root: str, text: str) -> None:
  """Logs once in a process what was left out of a folder.

  Args:
    root: the folder.
    text: see `Listing.left_out_text`.
  """
  if text:
    logging.warning('%s: %s', printable(root), text)


def why_not_a_file(path: str | os.PathLike[str]) -> str | None:
  """Returns why a path cannot be read as a file, e.g. 'is a pipe', or None."""
  path = os.fspath(path)
  try:
    mode = os.stat(path).st_mode
  except OSError as error:
    if os.path.islink(path):
      return 'is a link that leads nowhere'
    if isinstance(error, FileNotFoundError):
      return 'does not exist'
    return f'cannot be read: {error.strerror}'
  except ValueError:  # a NUL character
    return 'does not exist'
  if stat.S_ISREG(mode):
    return None
  kind = _kind(mode)
  return f'is a {kind}, not a picture file'


class _Folder(NamedTuple):
  """A folder to be read.

  Attributes:
    name: its path relative to the root; '' for the root.
    real: its path without links.
    left: the real paths of the folders in which links lay that led here.
    also: see `list_pictures`.
  """

  name: str
  real: str
  left: tuple[str, ...]
  also: tuple[str, ...] = ()

  def below(self, name):
    """Returns the path, relative to the root, of an entry of this folder."""
    return f'{self.name}/{name}' if self.name else name


def _walk(root, start, left_out, folders) -> Iterator[str]:
  """Yields the picture files in a folder and below it, each folder once.

  Folders that no link leads to come first: so a folder that can be reached both
  ways gets the name without a link.
  """
  seen = set()
  linked = collections.deque([start])
  while linked:
    pending = [linked.popleft()]
    while pending:
      folder = pending.pop()
      path = os.path.join(root, folder.name)
      try:
        state = os.stat(path)
        entries = _entries(path)
      except OSError as error:
        if not_of_the_file(error):
          raise
        left_out['folder that cannot be read'] += 1
        folders[folder.name] = None
        continue
      folders[folder.name] = state.st_mtime_ns
      if (state.st_dev, state.st_ino) in seen:
        left_out['second link to a folder'] += 1
        continue
      seen.add((state.st_dev, state.st_ino))
      for entry in entries:
        name = _picture(entry, folder, left_out)
        if name is not None:
          yield name
        for below in _subfolder(entry, folder, left_out):
          (linked if entry.is_symlink() else pending).append(below)


def _entries(path) -> list[os.DirEntry[str]]:
  with os.scandir(path) as entries:
    others = [entry for entry in entries if entry.name != INDEX_FOLDER]
  return sorted(others, key=lambda entry: entry.name)


def is_hidden(name: str) -> bool:
  """Returns whether an entry of this name is hidden, or another program's."""
  return name.startswith('.') or name in _HIDDEN


def _is(entry, test):
  """Returns entry.is_file() or entry.is_dir(); False for a looping link."""
  try:
    return getattr(entry, test)()
  except OSError as error:
    if not_of_the_file(error):
      raise
    return False


def _picture(entry, folder, left_out):
  """Returns the name of an entry that is a picture file; counts what is not.

  Subfolders are left to `_subfolder`.
  """
  if is_hidden(entry.name):
    left_out['hidden'] += 1
  elif _is(entry, 'is_file'):
    if has_suffix(entry.name) or entry.name.lower().endswith(folder.also):
      return folder.below(entry.name)
    suffix = os.path.splitext(entry.name)[1].lower()
    left_out[suffix or 'without a suffix'] += 1
  elif not _is(entry, 'is_dir'):
    try:
      left_out[_kind(entry.stat().st_mode)] += 1
    except OSError as error:
      if not_of_the_file(error):
        raise
      left_out['link that leads nowhere'] += 1
  return None


def _subfolder(entry, folder, left_out) -> list[_Folder]:
  """Returns [the folder that an entry is or links to], or [] for none."""
  if is_hidden(entry.name) or not _is(entry, 'is_dir'):
    return []
  if has_suffix(entry.name):
    left_out["folder with a picture's name"] += 1
    return []
  name = folder.below(entry.name)
  if not entry.is_symlink():
    real = os.path.join(folder.real, entry.name)
    return [_Folder(name, real, folder.left, folder.also)]
  target = os.path.realpath(entry.path)
  left = (*folder.left, folder.real)
  if any(_contains(target, path) for path in left):
    left_out['link to a folder around it'] += 1
    return []
  return [_Folder(name, target, left, folder.also)]


def _contains(folder, path):
  """Returns whether a folder is the path, or one of the folders around it."""
  return f'{path}/'.startswith(f'{folder.rstrip("/")}/')


def _kind(mode):
  """Returns a word for what is not a file."""
  return (
    'folder' if stat.S_ISDIR(mode)
    else 'pipe' if stat.S_ISFIFO(mode)
    else 'socket' if stat.S_ISSOCK(mode)
    else 'device'
  )  # fmt: skip
