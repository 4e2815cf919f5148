"""Checks at the start that the file system of a run can rename a folder.

A checkpoint is written under a temporary name and gets its own by a rename, and
an old one is renamed before it is deleted. A bucket with a flat namespace has
no folders: Cloud Storage FUSE renames an empty one there, and refuses one that
holds objects with EMFILE, "Too many open files", unless `--rename-dir-limit`
lets it copy them one by one ([gcsfuse]: its page on semantics, "Missing
features", and `renameNonHierarchicalDir` of its fs.go, August 2026). Other
mounts of object stores refuse it with errors of their own. Without this check a
run would learn it at its first save.

[gcsfuse]: github.com/GoogleCloudPlatform/gcsfuse
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil

from cdm.data.files import atomic_files, transient_errors
from cdm.distributed import bucket_folders, collectives

_PROBE = '.rename-check-'
_MOUNTS = pathlib.Path('/proc/self/mounts')


def check(workdir: str | os.PathLike) -> None:
  """Makes, renames and removes a folder with a file in the work directory.

  A collective: process 0 does it, and all raise. In a bucket itself nothing is
  renamed, and nothing is tried.

  Args:
    workdir: the work directory of a run, which this run holds.

  Raises:
    ValueError: the file system cannot rename a folder that is not empty.
    OSError: the folder cannot be written, or the storage does not answer.
  """
  if bucket_folders.url_of(workdir) is None:
    collectives.call_in_first(
      lambda: _check(pathlib.Path(workdir)), errors=(ValueError,)
    )


def _check(workdir: pathlib.Path) -> None:
  folder = workdir / f'{_PROBE}{atomic_files.unique_part()}'
  target = folder.with_name(f'{folder.name}-renamed')
  is_new = not workdir.exists()
  try:
    # As in a checkpoint: the file is in a folder of the folder.
    (folder / 'state').mkdir(parents=True)
    (folder / 'state/file').write_text('cdm', encoding='utf-8')
    try:
      os.rename(folder, target)
      whole = (target / 'state/file').is_file() and not folder.exists()
    except OSError as error:
      if transient_errors.of_the_system(error):
        raise
      raise ValueError(_sentence(workdir, _reason(error))) from None
    if not whole:
      raise ValueError(_sentence(workdir, 'it lost what the folder held'))
    is_new = False
  finally:
    # Also what a killed start has left: this run alone holds the folder.
    with contextlib.suppress(OSError):
      for left in workdir.glob(f'{_PROBE}*'):
        shutil.rmtree(left, ignore_errors=True)
      if is_new:
        workdir.rmdir()


def _reason(error: OSError) -> str:
  # Its words, "Too many open files", mislead people, and the command line.
  if error.errno == errno.EMFILE:
    return 'EMFILE, as gcsfuse has it in a bucket with flat namespace'
  return error.strerror or str(error)


def _sentence(workdir: pathlib.Path, reason: str) -> str:
  url = bucket_url(workdir)
  given = f'--workdir={url}' if url else '--workdir=gs://BUCKET/FOLDER'
  return (
    f'--workdir={workdir}: its file system cannot rename a folder that holds '
    f'files ({reason}), and that is how a checkpoint gets its name: give '
    f'{given}, which needs no mount and no rename, or a folder of a bucket '
    'with hierarchical namespace, of NFS or of a disk.'
  )


def bucket_url(path: pathlib.Path) -> str | None:
  """Returns the gs:// URL of a folder that gcsfuse has mounted, or None.

  Where the mount shows one folder of a bucket only (`--only-dir`), the mount
  table does not tell which, and the URL lacks it.

  Args:
    path: a folder.
  """
  try:
    lines = _MOUNTS.read_text(encoding='utf-8', errors='replace').splitlines()
  except OSError:
    return None  # Linux alone has this file.
  path = path.resolve()
  mounts = {}
  for line in lines:
    words = [_unescaped(word) for word in line.split()[:3]]
    if len(words) < 3:
      continue
    source, point, kind = words
    if path.is_relative_to(point):
      mounts[point] = (source, kind)  # The last one at a point counts.
  point = max(mounts, key=len, default='')
  source, kind = mounts.get(point, ('', ''))
  if kind != 'fuse.gcsfuse':
    return None
  below = path.relative_to(point).as_posix()
  # One mount of all buckets has them as its folders, and no bucket's name.
  parts = ([] if source == 'gcsfuse' else [source]) + [below]
  url = bucket_folders.PREFIX + '/'.join(parts)
  return url.removesuffix('/.').removesuffix('.')


def _unescaped(word: str) -> str:
  """Replaces \\040 and the like, by which the table writes a space."""
  return re.sub(r'\\([0-7]{3})', lambda found: chr(int(found[1], 8)), word)
