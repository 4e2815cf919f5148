"""Tells how much memory this machine has, on Linux and macOS."""

import functools
import os
import subprocess


@functools.cache
def total_bytes() -> int | None:
  """Returns the bytes of memory of this machine, or None if nothing tells."""
  try:
    found = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  except (AttributeError, ValueError, OSError):
    found = 0  # Windows has no sysconf, and not all systems know the name.
  return found if found > 0 else _from_sysctl()


def _from_sysctl() -> int | None:
  """Returns what macOS says."""
  try:
    done = subprocess.run(
      ['sysctl', '-n', 'hw.memsize'],
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
      encoding='utf-8',
    )
    found = int(done.stdout)
  except (OSError, ValueError, subprocess.SubprocessError):
    return None
  return found if found > 0 else None
