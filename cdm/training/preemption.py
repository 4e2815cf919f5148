"""Being asked to stop: Ctrl-C, or SIGTERM from whoever takes the machine.

Imports nothing heavy, so that signals are heeded from the first second on.
"""

import os
import signal
import threading

from cdm.distributed import exit_codes


class Stop:
  """Listens to SIGINT and SIGTERM: finish the step, save, end.

  A second signal ends the process at once; what is saved stays whole, because
  checkpoints appear complete or not at all.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.signum = None
    self._entered = 0
    self._previous = {}
    self._together = False
    self._agreed = False

  def agree(self):
    """From now on all processes of the run stop at the same step.

    To be called once they have joined. JAX has taken over SIGTERM by then: it
    tells the others, and the notices that cloud machines give besides.
    """
    from cdm.distributed import collectives

    self._together = collectives.process_count() > 1
    if self._together and self.signum is not None:
      os.kill(os.getpid(), signal.SIGTERM)  # it came before JAX listened

  def __enter__(self):
    self._entered += 1
    # Python runs handlers in the main thread only, and sets them only there.
    main = threading.current_thread() is threading.main_thread()
    if self._entered == 1 and main:
      for signum in self.SIGNALS:
        self._previous[signum] = signal.signal(signum, self.ask)
    return self

  def __exit__(self, *_):
    self._entered -= 1
    if not self._entered:
      for signum, handler in self._previous.items():
        signal.signal(signum, handler)
      self._previous = {}

  def due(self, boundary):
    """Whether the run is to be saved and ended between two steps.

    Every process asks this once between any two steps, with the same number,
    and all must get the same answer.

    Args:
      boundary: counts up; the number of steps made, plus those that were made
        again after a rollback.
    """
    if not self._together:
      return self.signum is not None
    from jax.experimental import multihost_utils

    self._agreed = multihost_utils.reached_preemption_sync_point(boundary)
    if self._agreed and self.signum is None:
      self.signum = signal.SIGTERM
      if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, self.ask)  # another ends at once
    return self._agreed

  @property
  def may_leave(self):
    """Whether waiting for data, which may never come, is to be given up."""
    # Of several processes none can go before all know.
    return self.signum is not None and not self._together

  @property
  def ending(self):
    """exits.Ending of a run that was asked to stop."""
    stopped = self.signum == signal.SIGINT
    return exit_codes.INTERRUPTED if stopped else exit_codes.PREEMPTED

  def ask(self, signum, _frame=None):
    """Asks to stop, as the signal `signum` does."""
    name = signal.Signals(signum).name
    # os.write: a handler may interrupt a print half-way, and printing again
    # would then fail.
    if self.signum is not None:
      os.write(2, f'\n{name} again: ending at once\n'.encode())
      os._exit(self.ending.code)
    self.signum = signum
    if self._together:
      os.kill(os.getpid(), signal.SIGTERM)  # JAX tells the others
    line = f'\n{name}: finishing the step and saving (again: end at once)\n'
    os.write(2, line.encode())
