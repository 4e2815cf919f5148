"""Tells how long this process has been running."""

import os
import pathlib
import time

_STAT = pathlib.Path('/proc/self/stat')
_IMPORTED = time.monotonic()


def seconds() -> float:
  """Returns the seconds since the process started.

  Without /proc they count from the import of this module, which comes soon
  after the start.
  """
  since_import = time.monotonic() - _IMPORTED
  try:
    # Field 22, counted behind the name of the program, which may hold blanks.
    ticks = int(
      _STAT.read_text(encoding='utf-8').rpartition(')')[2].split()[19]
    )
    booted = time.clock_gettime(time.CLOCK_BOOTTIME)
  except (OSError, ValueError, IndexError, AttributeError):
    return since_import
  return max(booted - ticks / os.sysconf('SC_CLK_TCK'), since_import)
