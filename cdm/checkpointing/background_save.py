"""Writes one checkpoint, in the background and in all processes of a run.

Every process writes its share and the checksums of what it wrote, and reports
to process 0 how that went. If all went well, process 0 completes the checkpoint
and gives it its name. Then it tells the others, so that a save has succeeded in
every process or in none. No process waits at a barrier for one that has failed.
"""

from __future__ import annotations

import collections
import errno
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from cdm.checkpointing import (
  checksums,
  half_written,
  reader,
  save_patience,
  single_files,
  state_arrays,
  verification,
  visible_files,
  write_errors,
)
from cdm.distributed import collectives, message_board, timeouts

_STATE = 'state'
_END = 'end'

_log = logging.getLogger(__name__)
# The saves of this program into a folder of that name, the same in all of its
# processes. Saves into different folders may overlap.
_numbers: dict[str, Iterator[int]] = collections.defaultdict(itertools.count)


class Content(NamedTuple):
  """What a checkpoint holds.

  Attributes:
    state: tree of arrays.
    parts: {name: JSON value}, the other folders of the checkpoint.
    metadata: further entries of `verification.METADATA`.
  """

  state: Any
  parts: dict[str, Any]
  metadata: dict[str, Any]


class Outcome(NamedTuple):
  """How a save ended, the same in all processes.

  Attributes:
    reason: why it failed, in words; '' if the checkpoint is complete.
    is_write: whether what failed is a write, which may succeed another time;
      otherwise it is a fault of the program.
    code: number of the system's error, 0 if there is none.
    process: index of the process that failed first.
    failing: how it stands with saving then.
  """

  reason: str = ''
  is_write: bool = False
  code: int = 0
  process: int = 0
  failing: save_patience.Failing = save_patience.Failing()

  @property
  def is_full(self) -> bool:
    """Whether it failed because there is no space left."""
    return self.code in (errno.ENOSPC, errno.EDQUOT)


def _outcome(words: list[Any]) -> Outcome:
  """Returns an outcome that was posted as JSON."""
  *fields, failing = words
  return Outcome(*fields, save_patience.Failing(*failing))


class BackgroundSave:
  """A checkpoint that is being written.

  Attributes:
    step: its step.
  """

  def __init__(
    self,
    folder: epath.Path,
    step: int,
    content: Content,
    *,
    before_commit: Callable[[], None] = lambda: None,
    conclude: Callable[[Outcome], Outcome] = lambda outcome: outcome,
  ):
    """Copies the state to the host's memory and starts to write it.

    Every process must do so, in the same order.

    Args:
      folder: folder of the run's checkpoints.
      step: step of the new one.
      content: what it holds; the state may be donated when this returns.
      before_commit: called in process 0, in a thread, when the checkpoint is
        written and before it counts as complete.
      conclude: called in process 0, in a thread, with the outcome; it returns
        the outcome that all processes get.
    """
    self.step = step
    self._folder, self._content = folder, content
    self._before_commit, self._conclude = before_commit, conclude
    number = next(_numbers[folder.name])
    boards = f'save/{folder.name}'
    self._board = message_board.Board(f'{boards}/{number}')
    if number > 1:
      # Everyone who took part in the save before that has joined its thread.
      self._old_board = message_board.Board(f'{boards}/{number - 2}')
    else:
      self._old_board = None
    self._path = _unfinished(folder, step, number)
    self._outcome: Outcome | None = None
    self._error: BaseException | None = None
    self._deadline = time.monotonic() + timeouts.seconds(
      timeouts.SAVE, processes=jax.process_count()
    )
    self._futures = state_arrays.begin_to_write(
      self._path / _STATE, content.state
    )
    self._content = content._replace(state=None)
    self._thread = threading.Thread(target=self._run, name='save', daemon=True)
    self._thread.start()

  def has_ended(self) -> bool:
    """Returns whether this process knows how the save ended."""
    return not self._thread.is_alive()

  def outcome(self) -> Outcome:
    """Waits until the save has ended, and returns how.

    Raises:
      Exception: the program itself failed in this process.
    """
    self._thread.join()
    if self._error is not None:
      raise self._error
    assert self._outcome is not None
    return self._outcome

  def _run(self) -> None:
    try:
      self._outcome = self._decide()
    except BaseException as error:
      self._error = error

  def _decide(self) -> Outcome:
    """Writes, and returns the outcome on which all processes agree."""
    own, sums = self._write_share()
    if not collectives.is_first():
      self._board.post(str(jax.process_index()), [own, sums])
      return _outcome(self._board.wait_for(_END, 2 * self._remaining()))
    outcome, known = own, {self._share_of(0): sums}
    others = range(1, collectives.process_count())
    reports = self._board.wait_for_all(
      [str(process) for process in others], self._remaining()
    )
    for process in others:
      report, sums = self._report_of(process, reports.get(str(process)))
      known[self._share_of(process)] = sums
      outcome = outcome if outcome.reason else report
    if not outcome.reason:
      outcome = self._attempt(lambda: self._complete(known))
    if outcome.reason:
      self._clear_away()
    outcome = self._conclude(outcome)
    if collectives.process_count() > 1:
      if self._old_board is not None:
        self._old_board.clear()
      self._board.post(_END, outcome)
    return outcome

  def _write_share(self) -> tuple[Outcome, dict[str, checksums.Sum]]:
    """Returns how writing went, and the checksums of what was written."""
    sums = {}

    def write():
      for future in self._futures:
        future.result(self._remaining())
      share = self._share_of(jax.process_index())
      sums.update(checksums.sums(self._path, below=share))

    outcome = self._attempt(write)
    self._futures = ()  # They hold a copy of the state.
    return outcome, sums

  def _attempt(self, write: Callable[[], object]) -> Outcome:
    try:
      write()
    except Exception as error:
      reason = write_errors.reason(error, self._folder)
      if reason is None:
        self._error = error
      return Outcome(
        reason or write_errors.first_line(error),
        is_write=reason is not None,
        code=write_errors.code(error),
        process=jax.process_index(),
      )
    return Outcome()

  def _report_of(
    self, process: int, report: Any
  ) -> tuple[Outcome, dict[str, checksums.Sum]]:
    """Returns the outcome and the checksums that a process has posted."""
    if report is None:
      silent = 'it has not written its share in time'
      return Outcome(silent, True, errno.ETIMEDOUT, process), {}
    words, sums = report
    return _outcome(words), {k: (size, crc) for k, (size, crc) in sums.items()}

  def _complete(self, known: dict[str, dict[str, checksums.Sum]]) -> None:
    """Makes a checkpoint of what all have written; in process 0."""
    path = self._path
    self._see_shares(known)
    for name, value in self._content.parts.items():
      (path / name).mkdir(parents=True, exist_ok=True)
      single_files.write_text(path / name / 'metadata', json.dumps(value))
    state_arrays.merge(path / _STATE)
    text = json.dumps(self._metadata())
    single_files.write_text(path / verification.METADATA, text)
    checksums.write(path, leave_out=(verification.METADATA,), known=known)
    self._before_commit()
    if single_files.is_remote(path):
      half_written.commit(path)
    else:
      path.rename(self._folder / str(self.step))

  def _see_shares(self, known: dict[str, dict[str, checksums.Sum]]) -> None:
    """Waits until this host sees what the others have written.

    What is not seen would not become a part of the checkpoint.
    """
    seconds = timeouts.seconds(timeouts.VISIBLE, processes=jax.process_count())
    for share, sums in known.items():
      path = self._path / share / 'manifest.ocdbt'
      if sums and not visible_files.appears(path, seconds):
        raise TimeoutError(
          f'for {seconds:.0f} s process 0 has not seen {path}, which another '
          'process has written'
        )

  def _metadata(self) -> dict[str, Any]:
    """Returns what Orbax needs to know to read the checkpoint by itself."""
    kinds: dict[str, type] = {_STATE: ocp.PyTreeCheckpointHandler}
    for name in self._content.parts:
      kinds[name] = ocp.JsonCheckpointHandler
    return {
      'item_handlers': {
        name: f'{kind.__module__}.{kind.__qualname__}'
        for name, kind in sorted(kinds.items())
      },
      'metrics': {},
      'performance_metrics': {},
      'commit_timestamp_nsecs': time.time_ns(),
      **self._content.metadata,
    }

  def _clear_away(self) -> None:
    """Removes what was written, which also frees its space."""
    try:
      half_written.delete(self._path)
    except OSError as error:  # The next start tries it again.
      _log.warning('Cannot remove %s: %s', self._path, error)

  def _remaining(self) -> float:
    return max(1.0, self._deadline - time.monotonic())

  @staticmethod
  def _share_of(process: int) -> str:
    return f'{_STATE}/{state_arrays.own_folder(process)}'


def _unfinished(folder: epath.Path, step: int, number: int) -> epath.Path:
  """Returns where a checkpoint is written until it is complete.

  On disk, a failed save may still be writing into its folder, so each save has
  one of its own.
  """
  if single_files.is_remote(folder):
    return folder / str(step)
  return folder / f'{step}{half_written.PARTIAL}-{number}'


def delete(folder: epath.Path, steps: Sequence[int]) -> None:
  """Deletes complete checkpoints; a kill leaves none of them in part.

  Args:
    folder: folder of the run's checkpoints.
    steps: their steps.

  Raises:
    OSError: one cannot be deleted.
  """
  for step in steps:
    path = folder / str(step)
    if single_files.is_remote(path):
      # Without this file it counts as unfinished.
      (path / reader.COMMITTED).unlink(missing_ok=True)
    else:
      name = f'{step}{half_written.PARTIAL}-old-{time.monotonic_ns()}'
      path = path.rename(folder / name)
    half_written.delete(path)
