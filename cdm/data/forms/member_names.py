"""Checks the names of an archive's members, and sorts out what is no picture.

Nothing is ever unpacked, so a name can do no harm. One that leads out of the
archive was still written to do harm, and such an archive is not read.
"""

import collections
import os
import re

from cdm.data import picture_files
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

# Most names; the others are looked at step by step.
_PLAIN = re.compile(r'(?:[^\\/:.\0][^\\/:\0]*/)*[^\\/:.\0][^\\/:\0]*')
_LONGEST = 4096  # characters, the longest path of Linux


def checked(name: str, archive: str) -> str:
  """Returns the name of a member with forward slashes and without './'.

  Args:
    name: as the archive stores it.
    archive: names the archive in the error.

  Raises:
    DamagedFile: the name leads out of the archive, or is no name.
  """
  if _PLAIN.fullmatch(name) and '..' not in name and len(name) <= _LONGEST:
    return name
  path = name.replace('\\', '/')
  steps = [step for step in path.split('/') if step not in ('', '.')]
  if path.startswith('/') or '..' in steps or re.match('[A-Za-z]:', path):
    raise DamagedFile(
      f'{printable(archive)} has a member named {printable(name[:200])}, which '
      'leads out of the archive. Do not unpack it; get it from its source.'
    )
  if not steps or len(path) > _LONGEST or '\0' in path:
    raise DamagedFile(
      f'{printable(archive)} is damaged: it has a member named '
      f'{printable(name[:200])!r}. Copy or download it again.'
    )
  return '/'.join(steps)


def is_hidden(name: str, left_out: collections.Counter[str]) -> bool:
  """Returns whether a member is hidden, as in a folder, and counts it then."""
  if any(map(picture_files.is_hidden, name.split('/'))):
    left_out['hidden'] += 1
    return True
  return False


def is_picture(name: str, left_out: collections.Counter[str]) -> bool:
  """Returns whether a member is named as a picture; counts it if not."""
  if is_hidden(name, left_out):
    return False
  if picture_files.has_suffix(name):
    return True
  suffix = os.path.splitext(name)[1].lower()
  left_out[suffix or 'without a suffix'] += 1
  return False


def say_left_out(
  archive: str, left_out: collections.Counter[str] | dict[str, int]
) -> None:
  """Logs once in a process what was left out of an archive."""
  listing = picture_files.Listing((), dict(left_out))
  picture_files.say_left_out(archive, listing.left_out_text())
