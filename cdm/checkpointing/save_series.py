"""The saves of a run, one after the other: what is kept, and tried again.

A save that failed is made again, from the state that the run then has, while
training goes on. Only when nothing could be saved for a stated time does the
failure become an error.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

from etils import epath

from cdm.checkpointing import (
  background_save,
  freed_memory,
  preservation,
  save_patience,
  single_files,
)
from cdm.distributed import announcements, collectives

_log = logging.getLogger(__name__)
_numbers = itertools.count()  # the same in all processes


class SaveSeries:
  """The complete checkpoints of a run, and the one that is being saved.

  Attributes:
    steps: steps of the complete checkpoints, ascending; the same in all
      processes.
  """

  def __init__(
    self,
    folder: epath.Path,
    steps: list[int],
    keeping: preservation.Preservation,
    *,
    before_commit: Callable[[], None],
    retry_seconds: float,
  ):
    """Takes the options, see `writer.Checkpointer.__init__`.

    Args:
      folder: folder of the run's checkpoints.
      steps: steps of those that are complete.
      keeping: which of them are kept.
      before_commit: called before a checkpoint counts as complete.
      retry_seconds: for so long saves may fail.
    """
    self.steps = steps
    self._folder, self._keeping = folder, keeping
    self._before_commit, self._retry_seconds = before_commit, retry_seconds
    self._patience = save_patience.Patience()
    self._save: background_save.BackgroundSave | None = None  # in progress
    self._old: list[int] = []  # steps that go when it is complete
    self._failure: background_save.Outcome | None = None  # of the last save
    self._failed_step = 0
    self._attempted: int | None = None  # step of the save that began last
    self._announced = announcements.Announcements(f'saves/{next(_numbers)}')

  def start(self, step: int, content: background_save.Content) -> None:
    """Starts a save, once the one before has ended.

    Raises:
      OSError: saves have failed for longer than they may.
    """
    self.wait()
    if step in self.steps:
      raise ValueError(f'{self._folder} has a checkpoint of step {step}.')
    kept = self._keeping.kept([*self.steps, step])
    self._old = [old for old in self.steps if old not in kept]
    self._attempted = step
    self._save = background_save.BackgroundSave(
      self._folder,
      step,
      content,
      before_commit=self._before_commit,
      conclude=self._conclude,
    )

  def wait(self) -> None:
    """Waits until the save that was started is complete or has failed.

    Raises:
      OSError: saves have failed for longer than they may.
    """
    if self._save is None:
      return
    save, self._save = self._save, None
    outcome = save.outcome()
    freed_memory.trim()
    if not outcome.reason:
      self._failure = None
      self.steps = sorted({*self.steps, save.step} - {*self._old})
      return
    self._failure, self._failed_step = outcome, save.step
    if outcome.is_full:
      gone = self._dispensable()
      self.steps = [step for step in self.steps if step not in gone]
    if not outcome.is_write or outcome.failing.is_over(self._retry_seconds):
      raise self._error(outcome)
    if collectives.is_first():
      _log.warning(
        'The checkpoint of step %d could not be written (%s). Training goes on '
        'and saving is tried again, for up to %.3g minutes in all; %s.',
        save.step,
        self._reason(outcome),
        self._retry_seconds / 60,
        self._loss(outcome),
      )

  def retry_is_due(self) -> bool:
    """Returns whether to save now because the last save failed.

    Every process must call it, equally often. In a run of several processes the
    answer is that to the call before.
    """
    ended = self._save is None or self._save.has_ended()
    due = self._attempted if ended and self._patience.is_due() else None
    failed = self._announced.exchange(due)
    # Another save may have been started since.
    return failed is not None and failed == self._attempted

  def last_pause(self) -> float | None:
    """Returns how long to wait before the last state is saved once more.

    For a run that has nothing else left to do.

    Returns:
      Seconds; None if the last save is complete.

    Raises:
      OSError: there is no more time.
    """
    if self._failure is None:
      return None
    if self._failure.failing.is_over_at_the_end(self._retry_seconds):
      raise self._error(self._failure)
    return self._failure.failing.last_pause()

  def forget_after(self, step: int) -> None:
    """Deletes the checkpoints of later steps; a collective.

    Raises:
      OSError: one cannot be deleted, or saves have failed for too long.
    """
    self.wait()
    if collectives.is_first():
      later = [each for each in self.steps if each > step]
      background_save.delete(self._folder, later)
    collectives.barrier(f'the checkpoints after step {step} are deleted')
    self.steps = [each for each in self.steps if each <= step]

  def _conclude(
    self, outcome: background_save.Outcome
  ) -> background_save.Outcome:
    """Deletes old checkpoints and adds how it stands; in process 0's thread."""
    if not outcome.reason:
      self._patience.succeeded()
      self._delete(self._old)
      return outcome
    if outcome.is_full:
      self._delete(self._dispensable())
    return outcome._replace(failing=self._patience.failed())

  def _delete(self, steps: list[int]) -> None:
    try:
      background_save.delete(self._folder, steps)
    except Exception as error:  # No reason to call the save a failure.
      _log.warning(
        'Cannot delete the checkpoints of steps %s: %s', steps, error
      )

  def _dispensable(self) -> list[int]:
    """Returns the checkpoints that give their space to the next attempt.

    They would go when it is complete anyway. The newest one always stays.
    """
    return [step for step in self._old if step != self.steps[-1]]

  def _error(self, outcome: background_save.Outcome) -> OSError:
    remedy, whole = 'Free space or choose another --workdir', ''
    if single_files.is_remote(self._folder):
      remedy = 'Look at the bucket and the network'
    if self.steps:
      whole = f'The checkpoints of steps {self.steps} are whole; '
    error = OSError(
      f'Cannot write the checkpoint of step {self._failed_step} in '
      f'{self._folder.parent}: {self._reason(outcome)}. {whole}'
      f'{self._loss(outcome)}. {remedy}, then start the same command again.'
    )
    if outcome.code:  # It tells whether another start may mend this.
      error.__cause__ = OSError(outcome.code, outcome.reason)
    return error

  def _reason(self, outcome: background_save.Outcome) -> str:
    if collectives.process_count() == 1:
      return outcome.reason
    return f'process {outcome.process}: {outcome.reason}'

  def _loss(self, outcome: background_save.Outcome) -> str:
    """Returns in words what is lost if the run ends now."""
    newest = self.steps[-1] if self.steps else 0
    return (
      f'{self._failed_step - newest} steps '
      f'({outcome.failing.unsaved / 60:.2g} minutes) are not saved'
    )
