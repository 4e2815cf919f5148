"""Lists a folder of pictures once for all processes of a run.

Listing a folder of a million files takes minutes on a network disk, and each
process would repeat it.
"""

import os
from typing import Any

from cdm.data import picture_files, record_format
from cdm.distributed import collectives


def list_folder(what: str | os.PathLike) -> picture_files.Listing | None:
  """Returns the picture files of a folder, which process 0 alone lists.

  A collective: every process must call it. None stands for what is no folder of
  picture files.

  Args:
    what: path.

  Raises:
    ValueError: the folder cannot be read.
  """
  if not os.path.isdir(what) or record_format.find_folder(what) is not None:
    return None

  def listed() -> dict[str, Any]:
    return picture_files.list_pictures(what)._asdict()

  found = collectives.call_in_first(listed)
  return picture_files.Listing(tuple(found['files']), found['left_out'])
