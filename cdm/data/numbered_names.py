"""Names numbered images: 000012.png, and from 1,000 on 012/012345.png.

Every further thousand has a folder of its own, because a folder of a million
files is slow to list and to look into, on network disks above all. The first
thousand lie beside these folders, so that a small set is one plain folder.
"""

import os
import re
from collections.abc import Sequence

PER_FOLDER = 1000


def file_name(n: int) -> str:
  """Returns the file name of image n, e.g. '000012.png'."""
  return f'{n:06d}.png'


def folder_name(n: int) -> str:
  """Returns the name of the folder of image n; '' for the first thousand."""
  return '' if n < PER_FOLDER else f'{n // PER_FOLDER:03d}'


def relative_name(n: int) -> str:
  """Returns the path of image n, e.g. '000012.png' or '001/001234.png'."""
  return os.path.join(folder_name(n), file_name(n))


def number(name: str) -> int | None:
  """Returns n for the file name of image n, None for any other name."""
  match = re.fullmatch(r'(\d{6,})\.png', name)
  return int(match[1]) if match and file_name(int(match[1])) == name else None


def are_thousands(files: Sequence[str]) -> bool:
  """Returns whether subfolders hold the further thousands of numbered images.

  Subfolders are classes otherwise. But then no image lies beside them, and no
  class holds exactly the numbers of its own thousand.

  Args:
    files: paths relative to the folder of the images, with forward slashes.
  """
  below = [file for file in files if '/' in file]
  if not below or len(below) == len(files):
    return False
  for file in below:
    folder, _, name = file.partition('/')
    n = number(name)
    if n is None or folder_name(n) != folder:
      return False
  return True
