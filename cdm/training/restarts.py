"""Counts the starts of a run, and ends one that is started again in vain.

  restarts.jsonl   {"time": seconds since 1970, "step": of the checkpoint,
                   "reason": how the start before ended} for each start, and
                   {"time": ..., "ended": kind, "code": ...} where the process
                   could still say how it ended; empty when the run is complete

Launchers start a run again after most ends. A run that fails at the same step
for ever would so cost money for ever. Starts are counted since the last one
that a person made: no launcher of cdm makes one after the codes 0 and 2, nor
after Ctrl-C. After the codes 3 to 5 none should either, but some platforms
start again whatever failed on one of several hosts, so those starts count. A
damaged line is left out, so damage at worst permits a few more starts.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict

from cdm.data.files import atomic_files, storage_retry
from cdm.distributed import exit_codes
from cdm.reporting import jsonl

if TYPE_CHECKING:
  from cdm.distributed.exit_codes import ExitCode

FILE = 'restarts.jsonl'
HOUR_S = 3600.0
# After these codes a person starts the run again, and no launcher.
_BY_A_PERSON = (
  exit_codes.COMPLETE.code,
  exit_codes.BAD_INPUT.code,
  exit_codes.INTERRUPTED.code,
)
# The reason of a start whose predecessor could not say how it ended.
KILLED = 'killed, or its machine was lost'


class Line(TypedDict):
  """A line of the file: a start, which has a step, or an end.

  Attributes:
    time: seconds since 1970.
    step: of the checkpoint that the start continued from; 0 for none.
    reason: why there was a start: how the one before ended. The first start
      has none.
    ended: the kind of the exit code.
    code: the exit code.
  """

  time: float
  step: NotRequired[int]
  reason: NotRequired[str]
  ended: NotRequired[str]
  code: NotRequired[int]


class Limits(NamedTuple):
  """How often a run may be started again; 0 is without limit.

  Attributes:
    in_vain: in a row without a newer checkpoint. Where SIGTERM ended a run,
      its start does not count.
    per_hour: within an hour.
    in_all: since a person started it.
  """

  in_vain: int
  per_hour: int
  in_all: int


class TooManyRestarts(Exception):
  """A run was started again too often."""

  ending = exit_codes.TOO_MANY_RESTARTS


class LostPeers(Exception):
  """The processes of a run do not find each other any more."""

  ending = exit_codes.LOST_PEERS


def explain(error: Exception, workdir: pathlib.Path) -> Exception:
  """Returns the error to raise where the processes did not find each other.

  An address that was right before is right again, so a host or its network is
  at fault, which another start may mend.

  Args:
    error: it says so, and has a final exit code.
    workdir: work directory of the run.
  """
  if not (workdir / FILE).exists():
    return error
  return LostPeers(
    f'{error} They found each other before, since {workdir} holds the record '
    'of a start, so the same command may be started again.'
  )


class Restarts:
  """The starts of the run in a work directory."""

  def __init__(
    self,
    workdir: str | os.PathLike,
    limits: Limits,
    *,
    active: bool = True,
    clock: Callable[[], float] = time.time,
  ):
    """Names the file; nothing is read yet.

    Args:
      workdir: work directory of the run.
      limits: how often it may be started again.
      active: whether this process counts; true in process 0 only.
      clock: returns the seconds since 1970.
    """
    self._path = pathlib.Path(workdir) / FILE
    self._limits, self._active, self._clock = limits, active, clock
    self._before: bytes | None = None  # what the file held before this start
    self._begun, self._step = False, 0

  def begin(self, step: int) -> None:
    """Counts this start; a second call may name a newer step for it.

    Args:
      step: of the checkpoint that the run continues from; 0 for none.

    Raises:
      TooManyRestarts: the run was started too often before.
    """
    if not self._active or (self._begun and step <= self._step):
      return
    self.forget()
    lines: list[Line] = jsonl.read(self._path, Line)
    self._check(_since_a_person(lines), step)
    self._before = self._path.read_bytes() if self._path.exists() else None
    self._begun, self._step = True, step
    line: Line = {'time': self._now(), 'step': step}
    if lines:
      line['reason'] = lines[-1].get('ended', KILLED)
    jsonl.append(self._path, [line])

  def forget(self) -> None:
    """Takes this start back: it was refused, and left the run unchanged."""
    if not self._begun:
      return
    self._begun = False
    if self._before is None:
      self._path.unlink(missing_ok=True)
      return
    with atomic_files.write_atomically(self._path) as partial:
      partial.write_bytes(self._before)

  def end(self, ending: ExitCode) -> None:
    """Records how this start ended; no error of writing is raised."""
    given_up = ending == exit_codes.TOO_MANY_RESTARTS
    if not self._active or not (self._begun or given_up):
      return
    line = {'time': self._now(), 'ended': ending.kind, 'code': ending.code}
    try:
      if ending == exit_codes.COMPLETE:
        atomic_files.write_text_atomically(self._path, '')
      else:
        jsonl.append(self._path, [line], seconds=storage_retry.ENDING_S)
    except OSError:  # One start more will count than should.
      return

  def _now(self):
    return round(self._clock(), 3)

  def _check(self, starts, step):
    now = self._clock()
    in_vain = _in_vain(starts, step)
    # Of a clock that was set back or forth, no start counts that was not within
    # the hour by either.
    recent = [s for s in starts if 0 <= now - s['time'] < HOUR_S]
    for count, key, what in (
      (in_vain, 'in_vain', 'in a row without a newer checkpoint'),
      (len(recent), 'per_hour', 'within an hour'),
      (len(starts), 'in_all', 'since a person started it last'),
    ):
      most = getattr(self._limits, key)
      if most and count >= most:
        raise TooManyRestarts(
          f'The run was started {count} times {what}, and ends for good at the '
          f'checkpoint of step {step}. Look for the reason in failures/ and '
          f'sessions.jsonl beside {self._path}, and start the same command '
          f'again, by hand; --config.train.max_restarts_{key}={most} is the '
          'limit, and 0 sets none.'
        )


def _since_a_person(lines):
  """Returns the starts since a person started the run, each with its end."""
  starts = []
  for line in lines:
    if 'step' in line:
      starts.append(line)
    elif line.get('code') in _BY_A_PERSON:
      starts = []
    elif starts:
      starts[-1] |= {'ended': line.get('ended', '')}
  return starts


def _in_vain(starts, step):
  """Returns how many of the last starts made no checkpoint, in a row."""
  count = 0
  for start in reversed(starts):
    if start['step'] < step:
      break
    step = start['step']
    count += start.get('ended') != exit_codes.PREEMPTED.kind
  return count
