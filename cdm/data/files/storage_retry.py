"""Tries a read or a write again, with growing pauses, while its error may pass.

What is tried again must give the same result however often it is tried. An
action that never returns is not noticed here, but by the watchdog of a run.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cdm.data.files import seconds_variable, transient_errors

# The environment variable that replaces the seconds. Launchers set variables,
# and worker processes inherit them.
VARIABLE = 'CDM_STORAGE_SECONDS'
SECONDS = 300.0
# For the last records of a run that has failed: it is to be started again soon.
ENDING_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0

T = TypeVar('T')
_log = logging.getLogger(__name__)
# Never the generator that decides what is trained on.
_random = random.Random()


def patience() -> float:
  """Returns for how many seconds a failing action is tried again.

  Raises:
    ValueError: the environment variable is not a positive number.
  """
  meaning = 'that a read or a write which fails is tried again'
  return seconds_variable.read(VARIABLE, SECONDS, meaning) or SECONDS


def pauses() -> Iterator[float]:
  """Yields the seconds to wait before each further attempt, without end.

  They double, and vary by a half: thousands of processes that lost a storage
  at the same moment must not come back to it at the same moment.
  """
  pause = min(FIRST_PAUSE_S, patience() / 8)
  longest = min(LONGEST_PAUSE_S, patience() / 4)
  while True:
    yield pause * _random.uniform(0.75, 1.25)
    pause = min(2 * pause, longest)


def retried(
  action: Callable[[], T],
  what: str,
  *,
  seconds: float | None = None,
  until_space: bool = False,
) -> T:
  """Calls a function until it returns, or its error is one that stays.

  Args:
    action: reads or writes, and gives the same result however often it is
      called.
    what: what it does, for messages: 'Writing /a/b'.
    seconds: for how long it is tried again; by default for `patience()`.
    until_space: whether it is also tried again while the disk is full: what a
      run of weeks writes waits for a person, or another program, to free space.

  Raises:
    transient_errors.NotAnswering: it failed for all of that time.
    Exception: the error of the function, if it does not pass.
  """
  began = time.monotonic()
  waits = pauses()
  while True:
    try:
      return action()
    except transient_errors.NotAnswering:
      raise  # It was tried again already.
    except Exception as error:
      full = until_space and transient_errors.of_a_full_disk(error)
      if not full and not transient_errors.of_a_library(error):
        raise
      most = patience() if seconds is None else seconds
      spent, pause = time.monotonic() - began, next(waits)
      if spent + pause > most:
        if full:
          raise  # To start again would not free space.
        raise not_answering(what, error, spent) from error
      announce(what, error, pause)
    time.sleep(pause)


def announce(what: str, error: BaseException, pause: float) -> None:
  """Logs that an action failed and is tried again after a pause."""
  _log.warning(
    '%s failed (%s); trying again in %.3g s.', what, _shown(error), pause
  )


def not_answering(
  what: str, error: BaseException, seconds: float = 0.0
) -> transient_errors.NotAnswering:
  """Returns the error of an action that failed, for so many seconds."""
  if isinstance(error, transient_errors.NotAnswering):
    return error
  again = f' again and again for {seconds:.3g} s' if seconds else ''
  return transient_errors.NotAnswering(
    f'{what} failed{again} ({_shown(error)}). Look at the storage, and start '
    'the same command again, on another machine if it lasts; '
    f'{VARIABLE} is for how long it is tried.'
  )


def _shown(error):
  lines = str(error).splitlines() or ['']
  return f'{type(error).__name__}: {lines[0][:300]}'
