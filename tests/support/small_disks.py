"""A disk so small that it can be filled, or files that cannot grow."""

import contextlib
import os
import resource
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


@contextlib.contextmanager
def files_of_at_most(size):
  """Context: no file may grow beyond so many bytes, as on a disk that is full.

  It works on every system and as every user, where `mounted` needs root.
  """
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
