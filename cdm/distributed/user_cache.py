"""Finds a folder for caches that this user can write, even without a home.

In a container the user's number often belongs to nobody: HOME is unset, '/', or
a folder that is not there. Libraries that then expand `~` make a folder of this
name in the current one. `ensure_home` gives such a process a home among the
temporary files before any library looks for it.
"""

import functools
import os
import pathlib
import shutil
import stat
import sys
import tempfile

# Below this much free space, bytes, a cache counts as full.
LEAST_FREE = 16 << 20
_TEMPORARY = ('/tmp', '/var/tmp', '/dev/shm')


def ensure_home() -> None:
  """Sets HOME to a folder of temporary files if this user has no home."""
  if _home() is not None:
    return
  folder = _temporary()
  if folder is None:
    return
  warn(
    f'this user has no home directory (HOME is {os.environ.get("HOME")!r}); '
    f'{folder} takes its place. Set HOME or XDG_CACHE_HOME to a folder that '
    'stays.'
  )
  os.environ['HOME'] = str(folder)


def expand(path: str) -> str:
  """Returns the path with a leading `~` replaced, or unchanged without one."""
  if path != '~' and not path.startswith('~/'):
    return path
  home = _home()
  if home is None:
    raise ValueError(
      f'{path}: this user has no home directory. Give the whole path, or set '
      'HOME.'
    )
  return str(home) + path[1:]


def find(name: str, file: str) -> pathlib.Path | None:
  """Returns where the user's caches hold a file, or None.

  Args:
    name: the cache, such as 'weights'.
    file: path within the cache.
  """
  paths = (root / name / file for root in _roots())
  return next((path for path in paths if path.exists()), None)


def folder(name: str, *, free: int = LEAST_FREE) -> pathlib.Path:
  """Returns a folder of the user's cache that can be written; makes it.

  Where the usual one is read-only or full, it is one among the temporary files,
  and a warning says so.

  Args:
    name: the cache, such as 'weights'.
    free: bytes that must be free.

  Raises:
    OSError: no folder can be written.
  """
  reasons = []
  for root in _roots():
    path = root / name
    reason = why_unusable(path, free)
    if reason is None:
      if reasons:
        warn(
          f'the cache {reasons[0]}; {path} takes its place and may not stay. '
          'XDG_CACHE_HOME names another folder.'
        )
      return path
    reasons.append(f'{path} {reason}')
  raise OSError(
    f'No folder for a cache can be written: {"; ".join(reasons) or "none"}. '
    'Name one with XDG_CACHE_HOME.'
  )


def local_folder(name: str) -> pathlib.Path:
  """Returns a folder of this user's own on a disk of this machine; makes it.

  The home directory may be on a network; the temporary files are not.

  Args:
    name: name of the folder.

  Raises:
    OSError: no folder among the temporary files belongs to this user.
  """
  root = _temporary()
  if root is None:
    raise OSError(
      'No folder for temporary files belongs to this user; set TMPDIR to one '
      'that can be written.'
    )
  path = root / name
  path.mkdir(exist_ok=True)
  return path


def _roots() -> list[pathlib.Path]:
  """Returns the folders of cdm's caches, the preferred one first."""
  # By the XDG specification a path that is not absolute is ignored.
  chosen = pathlib.Path(expand(os.environ.get('XDG_CACHE_HOME', '')))
  home, temporary = _home(), _temporary()
  roots = []
  if chosen.is_absolute():
    roots.append(chosen / 'cdm')
  elif home is not None:
    roots.append(home / '.cache' / 'cdm')
  if temporary is not None:
    roots.append(temporary / '.cache' / 'cdm')
  return roots


def _home() -> pathlib.Path | None:
  """Returns this user's home, or None if there is none to write below."""
  try:
    home = pathlib.Path.home()
  except RuntimeError:  # HOME is unset, and the user is not known either.
    return None
  if not home.is_absolute() or not home.is_dir():
    return None
  # '/' stands for no home in containers; a user may still own it.
  if home == pathlib.Path('/') and not os.access(home, os.W_OK):
    return None
  return home


def _temporary() -> pathlib.Path | None:
  """Returns a folder of this user's own among the temporary files, or None.

  Its name can be guessed, so one that another user made is not taken.
  """
  if not hasattr(os, 'getuid'):  # Windows: each user has a folder of their own.
    return pathlib.Path(tempfile.gettempdir())
  for parent in (os.environ.get('TMPDIR', ''), *_TEMPORARY):
    if not os.path.isabs(parent):
      continue
    path = pathlib.Path(parent) / f'cdm-{os.getuid()}'
    try:
      path.mkdir(mode=0o700, exist_ok=True)
      found = path.lstat()
    except OSError:
      continue
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if own and not found.st_mode & 0o077 and os.access(path, os.W_OK):
      return path
  return None


def why_unusable(path: str | os.PathLike, free: int = LEAST_FREE) -> str | None:
  """Returns why the folder cannot take files, or None; makes it if it can."""
  path = pathlib.Path(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
    # Only writing shows whether a network's file system takes files.
    with tempfile.TemporaryFile(dir=path):
      pass
    left = shutil.disk_usage(path).free
  except OSError as error:
    return f'cannot be written ({error.strerror})'
  return None if left >= free else f'is full ({left >> 20} MiB are free)'


@functools.cache
def warn(text: str) -> None:
  """Prints a warning to stderr, the same one only once."""
  print(f'cdm: warning: {text}', file=sys.stderr, flush=True)
