"""Stops a run on Ctrl-C or SIGTERM: it completes the step, saves and ends.

It imports nothing heavy, so that the signals are handled from the first second
on.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from cdm.distributed import exit_codes, folder_lock

if TYPE_CHECKING:
  import types


class Stop:
  """Handles SIGINT and SIGTERM while its context is entered.

  The first signal asks the run to complete its step, save and end. A second
  signal ends the process at once, which damages no checkpoint, because
  checkpoints appear complete or not at all. Contexts may be nested: the
  outermost one sets the handlers.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.signum: int | None = None  # the signal that asked to stop
    self._entered = 0
    self._previous = {}
    self._together = False  # several processes have to stop at the same step
    self._agreed = False

  def agree(self) -> None:
    """Makes all processes of the run stop at the same step from now on.

    Call it once the processes have joined. JAX has taken over SIGTERM by then,
    and passes the request on to the other processes, as it does with the
    preemption notices of cloud machines.
    """
    from cdm.distributed import collectives

    self._together = collectives.process_count() > 1
    if self._together and self.signum is not None:
      # The signal came before JAX listened, so it is sent once more.
      os.kill(os.getpid(), signal.SIGTERM)

  def __enter__(self) -> Stop:
    self._entered += 1
    # Python sets and runs signal handlers in the main thread only.
    main = threading.current_thread() is threading.main_thread()
    if self._entered == 1 and main:
      for signum in self.SIGNALS:
        self._previous[signum] = signal.signal(signum, self.ask)
    return self

  def __exit__(self, *_) -> None:
    self._entered -= 1
    if not self._entered:
      for signum, handler in self._previous.items():
        signal.signal(signum, handler)
      self._previous = {}

  def due(self, boundary: int) -> bool:
    """Returns whether the run has to save and end now.

    A collective: every process must call it between any two steps, and may call
    it within a long evaluation, equally often and with the same numbers. All
    get the same answer.

    Args:
      boundary: grows by one from call to call.
    """
    if not self._together:
      return self.signum is not None
    if self._agreed:
      return True  # JAX says so at one boundary only.
    from jax.experimental import multihost_utils

    self._agreed = multihost_utils.reached_preemption_sync_point(boundary)
    if self._agreed and self.signum is None:
      self.signum = signal.SIGTERM
      if threading.current_thread() is threading.main_thread():
        # From now on another SIGTERM ends this process at once.
        signal.signal(signal.SIGTERM, self.ask)
    return self._agreed

  @property
  def may_leave(self) -> bool:
    """Whether to give up waiting for data, which may never come.

    It is False in a run of several processes: none may leave before all have
    agreed to, because the others would hang in the next collective.
    """
    return self.signum is not None and not self._together

  @property
  def ending(self) -> exit_codes.ExitCode:
    """The exit code of a run that was asked to stop."""
    stopped = self.signum == signal.SIGINT
    return exit_codes.INTERRUPTED if stopped else exit_codes.PREEMPTED

  def asked_to_end(self) -> exit_codes.ExitCode | None:
    """Returns how the run ends if it was asked to, else None."""
    return None if self.signum is None else self.ending

  def ask(self, signum: int, _frame: types.FrameType | None = None) -> None:
    """Asks the run to stop; this is the handler of both signals."""
    name = signal.Signals(signum).name
    # The handler uses os.write, because it may interrupt a print half-way, and
    # printing again would then fail.
    if self.signum is not None:
      os.write(2, f'\n{name} again: ending at once\n'.encode())
      folder_lock.release_all()
      os._exit(self.ending.code)
    self.signum = signum
    if self._together:
      os.kill(os.getpid(), signal.SIGTERM)  # JAX tells the other processes
    line = f'\n{name}: finishing the step and saving (again: end at once)\n'
    os.write(2, line.encode())
