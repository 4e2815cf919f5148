"""Finds the system's reason in an error of writing a checkpoint."""

import errno
import os
import re

from etils import epath

from cdm.checkpointing import single_files

# gcsfuse in a bucket without hierarchical namespace, see `folder_rename`.
FEW_RENAMED = (
  'the file system renames no folder with so many files, as gcsfuse with a '
  'small --rename-dir-limit: mount without a limit a bucket with hierarchical '
  'namespace, or give --workdir=gs://BUCKET/FOLDER'
)


def reason(error: Exception, folder: epath.Path) -> str | None:
  """Returns why a checkpoint could not be written, in a few words.

  Args:
    error: what was raised while it was written.
    folder: the folder of the checkpoints.

  Returns:
    The reason, or None if the error is no failed write.
  """
  return _of_a_bucket(error, folder) or of_the_system(error)


def of_the_system(error: Exception) -> str | None:
  """Returns the system's reason if `error` is a failed write, else None."""
  if isinstance(error, OSError):
    if _is_refused_rename(error):
      return FEW_RENAMED
    return error.strerror or str(error)
  number = code(error)
  return os.strerror(number) if number else None


def code(error: Exception) -> int:
  """Returns the number of the system's error in a failed write, 0 for none."""
  if isinstance(error, OSError):
    if _is_refused_rename(error):
      return errno.ENOTSUP  # and not that too many files are open
    late = errno.ETIMEDOUT if isinstance(error, TimeoutError) else 0
    return error.errno or late
  # Orbax writes with TensorStore, whose ValueError has the number in its text.
  found = re.search(r"os_error_code='(\d+)'", str(error))
  return int(found[1]) if found else 0


def _is_refused_rename(error: OSError) -> bool:
  # Only a rename has a second path, and it opens no file.
  return error.errno == errno.EMFILE and error.filename2 is not None


def first_line(error: Exception) -> str:
  """Returns the type and the first line of an error, for a message."""
  return f'{type(error).__name__}: {error}'.split('\n')[0][:200]


def _of_a_bucket(error, folder):
  """Returns the first line of an error of a bucket's client, else None."""
  clients = ('gcsfs', 'aiohttp', 'google')
  is_client = type(error).__module__.split('.')[0] in clients
  # TensorStore raises a ValueError that names the object.
  named = os.fspath(folder).removeprefix('gs://') in str(error)
  if not single_files.is_remote(folder) or isinstance(error, OSError):
    return None
  return first_line(error) if is_client or named else None
