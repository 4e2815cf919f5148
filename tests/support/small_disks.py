"""A file system of its own, so small that it can be filled."""

import contextlib
import os
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def mounted(place, size):
  """Context: a new folder with so much space, '600k'; skips if not allowed."""
  place.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(place)]
  if os.getuid() or not shutil.which('mount'):
    pytest.skip('only root mounts a file system')
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip('mounting is not allowed here')
  try:
    yield place
  finally:
    subprocess.run(['umount', '-l', str(place)], check=True)
