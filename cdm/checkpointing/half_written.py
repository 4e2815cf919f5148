"""Finds the checkpoints that a killed run left half-written, and removes them.

On disk, they are written into a folder with a temporary name, which is renamed.
In a bucket nothing can be renamed: they are written under the final name, and
then a last file commits the checkpoint (`reader.is_complete`). A checkpoint in
a bucket may lack this file for two other reasons: the run was killed in the
very last moment, or the checkpoint was copied there from a disk. Its checksums
show that it is whole then, and it is committed.
"""

import errno
import logging
import shutil
import time

from etils import epath

from cdm.checkpointing import checksums, reader, single_files

PARTIAL = '.orbax-checkpoint-tmp'
# The threads of a failed save may go on writing for a moment.
_REMOVAL_SECONDS = 10.0

_log = logging.getLogger(__name__)


def find(directory: epath.Path) -> list[epath.Path]:
  """Returns the folders of unfinished checkpoints, in order.

  Args:
    directory: the folder of a run's checkpoints.
  """
  if not single_files.is_remote(directory):
    return sorted(directory.glob(f'*{PARTIAL}*'))
  # A bucket has no empty folder.
  inside = directory.iterdir() if directory.is_dir() else ()
  found = [path for path in inside if path.name.isdecimal()]
  return sorted(path for path in found if not reader.is_complete(path))


def remove(directory: epath.Path) -> None:
  """Removes unfinished checkpoints, and commits whole ones in a bucket."""
  for path in find(directory):
    if single_files.is_remote(path):
      if _is_whole(path):
        commit(path)
        _log.warning('%s is whole but was not committed; now it is.', path)
        continue
    _log.warning(
      'Removing %s: the run was killed while it was being written.', path
    )
    delete(path)


def _is_whole(path: epath.Path) -> bool:
  try:
    return checksums.check(path)
  except checksums.Damaged:
    return False


def commit(path: epath.Path) -> None:
  """Writes the last files of a checkpoint in a bucket, which make it complete.

  Args:
    path: folder of the checkpoint.
  """
  # Orbax looks for the file in the parts of a checkpoint, too.
  parts = [part for part in path.iterdir() if part.is_dir()]
  for folder in (*parts, path):
    single_files.write_text(folder / reader.COMMITTED, 'written by cdm\n')


def delete(path: epath.Path) -> None:
  """Removes a directory while a failed save may still be writing into it."""
  deadline = time.monotonic() + _REMOVAL_SECONDS
  while path.exists():
    try:
      if single_files.is_remote(path):
        path.rmtree(missing_ok=True)
      else:
        shutil.rmtree(path)
    except OSError as error:
      changed = error.errno in (errno.ENOENT, errno.ENOTEMPTY)
      if not changed or time.monotonic() > deadline:
        raise
      time.sleep(0.1)
