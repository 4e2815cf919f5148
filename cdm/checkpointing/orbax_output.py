"""Drops what Orbax and its libraries print of errors that are raised as well.

When the disk is full, one write of a checkpoint fails and its error is raised;
hundreds of others, in threads, would each print a traceback of their own.
"""

import logging
import pathlib
import sys
import traceback
from typing import Any


def silence() -> None:
  """Drops those messages from now on; all others are printed as before."""
  for name, keep in (
    ('absl', _not_logged_by_orbax),
    ('asyncio', _not_of_orbax),
  ):
    logger = logging.getLogger(name)
    if keep not in logger.filters:
      logger.addFilter(keep)
  if not isinstance(sys.unraisablehook, _WithoutClosedLoops):
    sys.unraisablehook = _WithoutClosedLoops(sys.unraisablehook)


def _not_logged_by_orbax(record: logging.LogRecord) -> bool:
  return not _is_part_of('orbax', record.pathname)


def _not_of_orbax(record: logging.LogRecord) -> bool:
  """Drops what asyncio says of tasks that Orbax has given up."""
  error = record.exc_info[1] if record.exc_info else None
  frames = traceback.extract_tb(error.__traceback__) if error else ()
  return not any(_is_part_of('orbax', frame.filename) for frame in frames)


class _WithoutClosedLoops:
  """An unraisablehook, which TensorStore's threads reach.

  After the first failed write Orbax closes its event loop, and every other
  write finds it closed when it wants to tell its result. No Python code called
  that, so the error cannot be raised, and Python prints it.
  """

  def __init__(self, before):
    self._before = before

  def __call__(self, unraisable: Any) -> None:
    # Where code of the program is to blame, there are frames of the program.
    frames = traceback.extract_tb(unraisable.exc_traceback)
    is_callback = all(_is_part_of('asyncio', f.filename) for f in frames)
    if not (is_callback and 'loop is closed' in str(unraisable.exc_value)):
      self._before(unraisable)


def _is_part_of(library: str, path: str) -> bool:
  return library in pathlib.PurePath(path).parts
