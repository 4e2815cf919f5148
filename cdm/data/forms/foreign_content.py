"""Says what a file is that should be an archive or a table and is none.

A download that went wrong leaves a web page, a text of a server or a pointer of
Git LFS under the name of the archive.
"""

import os

from cdm.data import image_kinds

_LARGEST_POINTER_BYTES = 1024


def remedy(path: str | os.PathLike[str]) -> str:
  """Returns a sentence about a file that cannot be read as what its name says.

  Args:
    path: the file.

  Returns:
    What it is instead, if its first bytes tell that, and what to do.

  Raises:
    OSError: it cannot be read.
  """
  with open(path, 'rb') as file:
    head = file.read(_LARGEST_POINTER_BYTES)
  if not head:
    return 'The file is empty. Copy or download it again.'
  what = image_kinds.foreign_kind(head)
  if what is None:
    return 'It is damaged or of another kind. Copy or download it again.'
  if head.startswith(b'version https://git-lfs'):
    return f'It is {what}. Run `git lfs pull` where it was cloned.'
  return f'It is {what}. Copy or download it again.'
