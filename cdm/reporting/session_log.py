"""Records the duration and peak memory of every start, in sessions.jsonl."""

import os
import pathlib
import sys
import time
from typing import NotRequired, Self, TypedDict

from cdm.data.files import storage_retry
from cdm.distributed import collectives, source_commit
from cdm.reporting import jsonl

FILE = 'sessions.jsonl'


class Line(TypedDict):
  """One line of sessions.jsonl.

  Attributes:
    what: name of the work, e.g. 'train'.
    seconds: duration of the session; added when the line is written.
    peak_host_bytes: peak memory of the process; added when the line is written.
    commit: commit of the program, or None, see `source_commit`; added too.
    first_step: training only, the step that the session began with.
    start_seconds: training only, seconds from the start of the process to the
      end of its first step.
    last_step: training only, the last step that the session made.
    ended: training only, how the session ended, e.g. 'preempted'.
    exit_code: training only, the exit code of the process.
  """

  what: str
  seconds: NotRequired[float]
  peak_host_bytes: NotRequired[int]
  commit: NotRequired[str | None]
  first_step: NotRequired[int]
  start_seconds: NotRequired[float]
  last_step: NotRequired[int]
  ended: NotRequired[str]
  exit_code: NotRequired[int]


class _Costs(TypedDict):
  """The values of a line that `total` needs."""

  seconds: float
  peak_host_bytes: int


class Total(TypedDict):
  """The sum of the sessions of a folder.

  Attributes:
    seconds: sum of the durations.
    peak_host_bytes: largest of the peak memories.
  """

  seconds: float
  peak_host_bytes: int


class Session:
  """Times a block of work and writes one line when it ends, however it ends.

  Use as a context manager. `forget` prevents the line.

  Attributes:
    facts: the values of the line; the caller adds its own during the work.
  """

  def __init__(self, folder: str | os.PathLike, what: str):
    """Prepares the line.

    Args:
      folder: folder of the record; it must exist when the block ends.
      what: name of the work.
    """
    self._path = pathlib.Path(folder) / FILE
    self._due = True
    self.facts: Line = {'what': what}

  def __enter__(self) -> Self:
    self._start = time.monotonic()
    return self

  def forget(self) -> None:
    """Prevents the line; for work that was refused before it began."""
    self._due = False

  def __exit__(
    self, _: object, error: BaseException | None, __: object
  ) -> None:
    self.write(error)

  def write(self, error: BaseException | None = None) -> None:
    """Writes the line, on the first call and in process 0 only.

    Args:
      error: the error that ended the work, or None. If there is such an error,
        a failure to write the line is not raised, so as not to hide it.
    """
    if not self._due or not collectives.is_first():
      return
    self._due = False
    self.facts['seconds'] = round(time.monotonic() - self._start, 3)
    self.facts['peak_host_bytes'] = peak_host_bytes()
    self.facts['commit'] = source_commit.commit()
    try:
      jsonl.append(
        self._path,
        [self.facts],
        seconds=None if error is None else storage_retry.ENDING_S,
      )
    except OSError:
      if error is None:
        raise  # If the work has failed, its own error is raised instead.


def peak_host_bytes() -> int:
  """Returns the peak memory of this process so far, in bytes.

  It is 0 on Windows, where Python does not tell.
  """
  try:
    import resource
  except ImportError:
    return 0
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == 'darwin' else peak * 1024


def total(folder: str | os.PathLike) -> Total | None:
  """Sums up the sessions of a folder.

  Returns:
    The sum, or None if there is no record.
  """
  lines = jsonl.read(pathlib.Path(folder) / FILE, _Costs)
  if not lines:
    return None
  return {
    'seconds': round(sum(line['seconds'] for line in lines), 1),
    'peak_host_bytes': max(line['peak_host_bytes'] for line in lines),
  }
