"""Gives each gs:// folder that a command uses a local folder, its mirror.

Large things of a run, its checkpoints, are written to the bucket and read from
it directly. Everything else (records, grids, the config) is small and is
appended to or renamed, which no object store can do; it is written into the
mirror, by the code that writes any work directory, and `bucket_mirror` copies
it. So all code takes the path of a folder, and only the few places that open
checkpoints ask here where they are.

Mirrors are in the user's cache, in one tree for commands that write and in
another for commands that only read: a command that reads a bucket must not
overwrite what a run of this machine has not uploaded yet.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
from typing import TYPE_CHECKING

from cdm.data import shell_commands
from cdm.distributed import user_cache

if TYPE_CHECKING:
  from etils import epath

PREFIX = 'gs://'
# Folder of a work directory in which JAX keeps compiled programs, in a bucket
# too: they are as large as checkpoints and belong into no mirror.
COMPILED = 'compilation_cache'
_mirrors: dict[pathlib.Path, str] = {}  # {mirror: URL}


def prefer_gcsfs() -> None:
  """Makes etils open buckets with gcsfs where it is installed.

  Where TensorFlow is installed, etils would use that, another client with rules
  of its own. It asks once in a process, so this must come first.
  """
  if importlib.util.find_spec('gcsfs') is not None:
    os.environ.setdefault('EPATH_USE_TF', 'false')


def prepare() -> None:
  """Prepares this process for gs:// paths.

  Raises:
    ValueError: gcsfs is not installed.
  """
  if importlib.util.find_spec('gcsfs') is None:
    raise ValueError(
      'gs:// needs gcsfs, which is not installed. Install it with '
      f'`{shell_commands.install("cdm[gcs]")}`, or mount the bucket with '
      'gcsfuse and give the path below its mount point.'
    )
  import fsspec.config

  # Objects are also written by TensorStore and by other processes, of which
  # gcsfs learns nothing: a listing that it remembers would hide them.
  options = fsspec.config.conf.setdefault('gcs', {})
  options['use_listings_cache'] = False


def is_url(text: str) -> bool:
  """Returns whether a text is the URL of something in a bucket."""
  return text.startswith(PREFIX)


def parse(url: str) -> tuple[str, str]:
  """Splits a URL into the name of the bucket and a path in it.

  Raises:
    ValueError: the URL names no bucket, or no usable path in one.
  """
  bucket, _, path = url.removeprefix(PREFIX).partition('/')
  path = path.strip('/')
  parts = path.split('/') if path else []
  # A part of a path becomes the name of a local folder.
  usable = all(part not in ('', '.', '..') for part in parts)
  if not re.fullmatch(r'[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]', bucket):
    raise ValueError(
      f'{url} names no bucket: a name has 3 to 222 lower-case letters, digits, '
      'dots, hyphens and underscores. Give gs://BUCKET/FOLDER.'
    )
  if not usable or '\\' in path or not path.isprintable():
    raise ValueError(
      f'{url} has an empty or relative part in its path, or a sign that no '
      'folder can have. Give gs://BUCKET/FOLDER.'
    )
  return bucket, path


def mirror(url: str, *, written: bool) -> pathlib.Path:
  """Returns the mirror of a bucket's folder, which need not exist yet.

  Args:
    url: URL of the folder.
    written: whether the command writes into the folder.
  """
  bucket, path = parse(url)
  kind = 'written' if written else 'read'
  # Without links, so that a resolved path below it is one of a mirror too.
  cache = user_cache.folder('buckets').resolve()
  folder = cache / kind / bucket / path
  _mirrors[folder] = f'{PREFIX}{bucket}/{path}'.rstrip('/')
  return folder


def url_of(path: str | os.PathLike) -> str | None:
  """Returns the URL that a path at or below a mirror stands for, or None."""
  if not _mirrors:
    return None
  given = pathlib.Path(os.path.abspath(path))
  for folder in (given, *given.parents):
    if folder in _mirrors:
      below = given.relative_to(folder).as_posix()
      return _mirrors[folder] + ('' if below == '.' else f'/{below}')
  return None


def shown(path: str | os.PathLike) -> str:
  """Returns the URL that a path stands for, or else the path."""
  return url_of(path) or os.fspath(path)


def with_urls(text: str) -> str:
  """Returns a text with the URLs in place of the paths of mirrors."""
  for folder in sorted(_mirrors, key=lambda path: -len(str(path))):
    text = text.replace(str(folder), _mirrors[folder])
  return text


def storage(path: str | os.PathLike) -> epath.Path:
  """Returns where large things are that are said to be at a path.

  That is the path itself, or below a mirror the URL that it stands for. Both
  have the methods of pathlib.
  """
  from etils import epath

  url = url_of(path)
  if url is not None:
    prepare()
  return epath.Path(url or pathlib.Path(path).absolute())
