"""Names that not every file system takes."""

import os

import pytest


def of_bytes(folder, name):
  """-> the name as Python has it; skips where it cannot be a file's."""
  decoded = os.fsdecode(name)
  try:
    (folder / decoded).touch()
  except OSError:  # As APFS on a Mac, which takes UTF-8 alone.
    pytest.skip('this file system takes no names of any bytes')
  (folder / decoded).unlink()
  return decoded
