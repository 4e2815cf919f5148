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


def only_divide(files: Sequence[str]) -> bool:
  """Returns whether subfolders only divide numbered images, and are no classes.

  So it is with the images that cdm draws, see `are_thousands`, with the files
  of StyleGAN's and EDM's tools (00001/img00001234.png) and with FFHQ's
  (01000/01234.png).

  Args:
    files: paths relative to the folder of the images, with forward slashes.
  """
  if are_thousands(files):
    return True
  return bool(files) and all(map(_is_in_its_thousand, files))


def _is_in_its_thousand(file):
  match = re.fullmatch(r'(\d{5})/(img)?(\d{5,8})\.(?:png|jpe?g|webp)', file)
  if not match:
    return False
  thousand = int(match[3]) // PER_FOLDER
  if match[2]:
    return int(match[1]) == thousand
  return int(match[1]) == thousand * PER_FOLDER
