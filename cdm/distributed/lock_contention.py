"""Decides what a start does that finds its folder held by another run.

It takes the folder over if that run is dead, waits if it will end soon or may
be dead, and is refused otherwise. `folder_lock` describes the rules; how a lock
is stored, in a folder or in a bucket, makes no difference to them.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from cdm.distributed import exit_codes, lock_owner, peer_monitor
from cdm.distributed.lock_owner import Claim

ENDING_SECONDS = 600.0

# Returns how a run ends that was asked to end by a signal, or None.
AskedToEnd = Callable[[], exit_codes.ExitCode | None]


class FolderInUse(ValueError):
  """Another run holds the folder.

  Attributes:
    ending: not a code after which launchers start the command again, because it
      would be refused again for as long as the other run lives.
  """

  def __init__(
    self, message: str, ending: exit_codes.ExitCode = exit_codes.BAD_INPUT
  ):
    super().__init__(message)
    self.ending = ending


class Contention:
  """The attempts of one start to take a folder.

  Attributes:
    named: the folder for messages, with the flag that gave it.
    asked_to_end: tells whether this run was asked to end.
  """

  def __init__(self, given: str, flag: str | None, asked_to_end: AskedToEnd):
    """Remembers the folder.

    Args:
      given: the folder, as the user gave it.
      flag: the flag that gave it; None if the user cannot give another.
      asked_to_end: see the class.
    """
    self._given, self._flag = given, flag
    self.named = f'{flag}={given}' if flag else given
    self.asked_to_end = asked_to_end
    self._began = 0.0  # the first attempt
    # The first sight of a lock of another machine: its token, its modification
    # time, and when that was.
    self._first_sight = ('', 0, 0.0)
    self._said: set[str] = set()

  def begin(self) -> None:
    """Marks the first attempt, from which the time of waiting counts."""
    self._began = self._began or time.monotonic()

  def is_dead(self, claim: Claim, silence: float) -> bool:
    """Whether the owner has ended; False if this start has to wait.

    Args:
      claim: the lock.
      silence: seconds since its last sign of life, by one clock.

    Raises:
      FolderInUse: the owner is alive and will not end soon, or this run was
        asked to end while it waits.
    """
    silence = max(silence, 0.0)
    alive = self._is_alive(claim, silence)
    if alive is False:
      return True
    owner = lock_owner.describe(claim)
    waited = time.monotonic() - self._began
    if alive and not (claim.is_ending and waited < ENDING_SECONDS):
      instead = f', or give another {self._flag}' if self._flag else ''
      raise FolderInUse(
        f'{self.named} is in use by {owner}. Two runs in one folder would '
        'overwrite the files of each other. Wait for that run or end it'
        f'{instead}.'
      )
    asked = self.asked_to_end()
    if asked is not None:
      raise FolderInUse(
        f'stopped while waiting for {self._given}, which is in use by {owner}. '
        'Nothing was begun.',
        asked,
      )
    if claim.is_ending:
      reason, most = 'is ending', ENDING_SECONDS
    else:
      reason = f'showed its last sign of life {silence:.0f} s ago'
      most = lock_owner.SILENT_SECONDS - silence
      most = max(most, lock_owner.WATCH_SECONDS)
    self._say(
      f'{self._given} is in use by {owner}, which {reason}: waiting for at '
      f'most {most:.0f} s',
      once=reason[:9],
    )
    return False

  def _is_alive(self, claim: Claim, silence: float) -> bool | None:
    """Whether the owner still runs; None if it cannot be told yet."""
    if claim.owner is not None and lock_owner.is_here(claim.owner):
      return lock_owner.lives(claim.owner)
    now = time.monotonic()
    if self._first_sight[0] != claim.token:
      self._first_sight = (claim.token, claim.beat, now)
    _, beat, since = self._first_sight
    if claim.beat != beat:
      return True
    enough = lock_owner.SILENT_SECONDS
    if silence >= enough:
      enough = lock_owner.WATCH_SECONDS
    return False if now - since >= enough else None

  def say_taken_over(self, dead: Claim) -> None:
    """Prints that this run replaces one that has ended."""
    self._say(
      f'{self._given} was held by {lock_owner.describe(dead)}, which has ended '
      'without releasing it; this run takes it over'
    )

  def _say(self, text: str, once: str = '') -> None:
    if once not in self._said:
      print(f'cdm: {text}.', file=sys.stderr, flush=True)
    self._said |= {once} - {''}

  def leave(self, claim: Claim) -> NoReturn:
    """Ends this process, which has lost its folder to another run."""
    sentence = (
      f'{self._given} was taken over by {lock_owner.describe(claim)}, because '
      'this process showed no sign of life for '
      f'{lock_owner.SILENT_SECONDS:.0f} s. It ends at once, or it would '
      'overwrite the files of that run.'
    )
    print(f'\ncdm: error: {sentence}', file=sys.stderr, flush=True)
    peer_monitor.leave(exit_codes.BAD_INPUT, sentence)
    os._exit(exit_codes.BAD_INPUT.code)
