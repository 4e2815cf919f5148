"""Waits until the storage shows this host what process 0 already sees there.

The file systems of a network keep listings for a while, NFS for up to a minute,
so a checkpoint that one host has just written may be missing on another.
"""

import contextlib
import os
import socket
import time

import jax
from etils import epath

from cdm.checkpointing import single_files
from cdm.distributed import collectives, exit_codes, timeouts

POLL_S = 0.5  # between two looks


class NotVisible(OSError):
  """The storage of this host does not show what process 0 sees."""

  # Another start, perhaps on other hosts, may well see it.
  ending = exit_codes.NO_STORAGE


def wait_for(path: epath.Path) -> None:
  """Waits until this process sees a file or folder; process 0 never waits.

  Args:
    path: what process 0 has seen.

  Raises:
    NotVisible: it does not appear within `timeouts.VISIBLE`.
  """
  if collectives.is_first() or path.exists():
    return
  seconds = timeouts.seconds(
    timeouts.VISIBLE, processes=collectives.process_count()
  )
  if not appears(path, seconds):
    raise NotVisible(
      f'{path} is there for process 0, but process {jax.process_index()} on '
      f'{socket.gethostname()} has not seen it for {seconds:.0f} s. Look at '
      'the file system of this host, or wait longer with '
      f'{timeouts.VISIBLE.variable}=SECONDS; then start the same command again.'
    )


def appears(path: epath.Path, seconds: float) -> bool:
  """Waits until this process sees a file or folder that another has written.

  Returns:
    False if it does not appear within so many seconds.
  """
  end = time.monotonic() + seconds
  while not _appeared(path):
    if time.monotonic() >= end:
      return False
    time.sleep(POLL_S)
  return True


def _appeared(path: epath.Path) -> bool:
  if not single_files.is_remote(path):
    # Opening the folder makes NFS ask the server for its present state.
    with contextlib.suppress(OSError), os.scandir(path.parent):
      pass
  return path.exists()
