"""Raises the limit of open files, and says so where it still is too small.

A data set may have thousands of shards, and each is an open file. Systems start
a program with a low limit, 256 on macOS and 1024 on most of Linux, which it may
raise up to a second, hard limit.
"""

import importlib
from typing import Any

from cdm.data.files.damaged_file import too_many_open
from cdm.distributed import exit_codes

# More than any data set needs. Some libraries go through all numbers below the
# limit when they start a process, and containers may allow 10^9.
MOST = 2**20
# macOS may call its hard limit infinite and refuse to set that.
_SMALLER = (2**16, 10240, 4096, 1024)


class TooManyOpenFiles(OSError):
  """The limit of open files is reached."""

  ending = exit_codes.BAD_INPUT


def raise_limit() -> None:
  """Raises this process's limit of open files as far as it may."""
  resource = _resource()
  if resource is None:
    return
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  for wanted in (MOST, *_SMALLER):
    if hard != resource.RLIM_INFINITY:
      wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or wanted <= soft:
      return
    try:
      resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
      return
    except (OSError, ValueError):
      continue


def explain(error: BaseException) -> BaseException:
  """Returns a TooManyOpenFiles for an error that the limit caused, or itself.

  Libraries raise errors of their own types with the system's words in them.
  """
  cause = too_many_open(error)
  if cause is None:
    return error
  name = cause.filename if isinstance(cause, OSError) else None
  what = (str(name or cause).strip() or type(error).__name__).splitlines()[0]
  made = TooManyOpenFiles(
    f'{what} cannot be opened: too many files are open. {_limits()}'
  )
  made.__cause__ = error
  return made


def _limits() -> str:
  """Returns the limits of this process, and how they are raised."""
  resource = _resource()
  if resource is None:
    return 'Close other programs, or use fewer and larger shards.'
  soft, hard = (
    'unlimited' if number == resource.RLIM_INFINITY else f'{number:,}'
    for number in resource.getrlimit(resource.RLIMIT_NOFILE)
  )
  return (
    f'This process may open {soft} (`ulimit -n`), and its user at most {hard} '
    '(`ulimit -Hn`). Start the command from a shell where `ulimit -n 65536` '
    'was run, which needs root above the second number (docker run --ulimit '
    'nofile=65536), or use fewer and larger shards.'
  )


def _resource() -> Any:
  """Returns Python's module of limits, or None on Windows, which has none."""
  try:
    return importlib.import_module('resource')
  except ImportError:
    return None
