"""Ends every process of a run when one of them fails or stops responding.

A process that fails writes its reason into the key-value store of JAX's
coordination service, and every other process exits with the same exit code. A
process that ends without a report is noticed by its missing heartbeat, and so
is one whose work hangs: it sends no heartbeat either. Without this module the
others would wait in a collective for minutes, and JAX would then abort them
without naming the reason.
"""

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cdm.distributed import exit_codes, timeouts
from cdm.distributed.exit_codes import ExitCode

POLL_INTERVAL_S = 1.0  # between two checks whether a process has failed
HEARTBEAT_INTERVAL_S = 10.0
# A process without a heartbeat for this long counts as lost.
HEARTBEAT_TIMEOUT_S = timeouts.HEARTBEAT.default
# By how much JAX's own time-out is longer, after which JAX aborts the process.
JAX_MARGIN_S = 40.0
# How long a process waits before it follows another one's failure. If the same
# failure happens in every process, each exits by itself within this time.
EXIT_GRACE_S = 5.0
# How long the other processes wait at the end for process 0, which may still be
# writing for all of them. JAX would wait five minutes, and then abort them.
CLOSE_TIMEOUT_S = timeouts.CLOSE.default

_FAILED, _GONE, _PULSE = 'cdm/failed', 'cdm/gone/', 'cdm/pulse/'
_CLOSED = 'cdm/closed'


class PeerMonitor:
  """Watches the other processes of a run from a background thread.

  Attributes:
    before_end: callback `before_end(exit_code, sentence)`, or None. The
      watching thread calls it just before it ends this process because another
      process failed.
    is_alive: callback that returns False while the work of this process hangs;
      it then sends no heartbeat.
  """

  def __init__(
    self,
    store: Any,
    index: int,
    count: int,
    *,
    end: Callable[[int], object] = os._exit,
    heartbeat_timeout: float | None = None,
    close_timeout: float | None = None,
  ):
    """Prepares the thread, which `start` starts.

    Args:
      store: client of JAX's coordination service; of its methods,
        `key_value_set`, `key_value_try_get` and `key_value_dir_get` are used.
      index: index of this process.
      count: number of processes of the run.
      end: ends this process immediately with the exit code it is given.
      heartbeat_timeout: replaces `HEARTBEAT_TIMEOUT_S`.
      close_timeout: replaces `CLOSE_TIMEOUT_S`.
    """
    self._heartbeat_timeout = heartbeat_timeout or HEARTBEAT_TIMEOUT_S
    self._close_timeout = close_timeout or CLOSE_TIMEOUT_S
    self.before_end: Callable[[ExitCode, str], None] | None = None
    self.is_alive: Callable[[], bool] = lambda: True
    self._store, self._index, self._count = store, index, count
    self._exit = end
    self._ended = threading.Event()
    # For each heartbeat key: its last value, and when this process saw it
    # change.
    self._heartbeats: dict[str, tuple[str, float]] = {}
    self._last_heartbeat = -HEARTBEAT_INTERVAL_S
    self._thread = threading.Thread(
      target=self._watch, name='peer_monitor', daemon=True
    )

  def start(self) -> None:
    """Starts the watching thread."""
    self._thread.start()

  def close(self) -> None:
    """Stops the monitor of a process that exits normally.

    Waits for process 0 to close first, for up to the time-out of closing.
    """
    with contextlib.suppress(Exception):  # The store may be gone already.
      if self._index == 0:
        self._store.key_value_set(_CLOSED, '', allow_overwrite=True)
      deadline = time.monotonic() + self._close_timeout
      while time.monotonic() < deadline and self._get(_CLOSED) is None:
        time.sleep(0.1)
    self._ended.set()
    self._thread.join(timeout=10)

  def failure(self, wait: float = 0.0) -> tuple[int, ExitCode, str] | None:
    """Returns the first failure of the run, or None if there is none.

    Args:
      wait: seconds to wait for a failure to be reported. If another process's
        failure causes an error here, the error can come before the report.

    Returns:
      (index of the process that failed first, its exit code, the reason as a
      sentence), or None.
    """
    deadline = time.monotonic() + wait
    while True:
      text = self._get(_FAILED)
      if text is not None:
        index, kind, code, sentence = json.loads(text)
        return index, ExitCode(kind, code), sentence
      if time.monotonic() >= deadline:
        return None
      time.sleep(0.1)

  def leave(self, ending: ExitCode, sentence: str) -> None:
    """Reports that this process failed and ends it. Never returns."""
    self.report(ending, sentence)
    self._go(ending)

  def report(self, ending: ExitCode, sentence: str) -> None:
    """Reports that this process failed and is about to end itself."""
    self._ended.set()
    with contextlib.suppress(Exception):  # This process must end in any case.
      self._report(self._index, ending, sentence)

  def _report(self, index: int, ending: ExitCode, sentence: str) -> None:
    # The store refuses to overwrite a key: the first report of a run stays.
    with contextlib.suppress(Exception):
      words = json.dumps([index, *ending, sentence])
      self._store.key_value_set(_FAILED, words)

  def _go(self, ending: ExitCode) -> None:
    """Ends this process; process 0, which holds the store, ends last."""
    with contextlib.suppress(Exception):
      self._store.key_value_set(f'{_GONE}{self._index}', '')
      deadline = time.monotonic() + 2 * EXIT_GRACE_S
      while self._index == 0 and time.monotonic() < deadline:
        if len(self._store.key_value_dir_get(_GONE)) == self._count:
          break
        time.sleep(0.1)
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(Exception):
        stream.flush()
    # Not sys.exit: JAX's exit handlers would wait for the other processes.
    self._exit(ending.code)

  def _get(self, key: str) -> str | None:
    try:
      return self._store.key_value_try_get(key)
    except Exception as error:  # noqa: BLE001 (JAX raises a type of its own)
      if 'NOT_FOUND' in str(error):
        return None
      raise

  def _watch(self) -> None:
    while not self._ended.wait(POLL_INTERVAL_S):
      try:
        self._send_heartbeat()
        failure = self.failure() or self._lost_peer()
      except Exception:  # noqa: BLE001
        # The store is gone, because process 0 is; JAX ends this process.
        continue
      if failure is not None:
        self._follow(*failure)
        return

  def _send_heartbeat(self) -> None:
    now = time.monotonic()
    due = now - self._last_heartbeat >= HEARTBEAT_INTERVAL_S
    if due and self.is_alive():
      self._last_heartbeat = now
      self._store.key_value_set(
        f'{_PULSE}{self._index}', str(now), allow_overwrite=True
      )

  def _lost_peer(self) -> tuple[int, ExitCode, str] | None:
    """Returns a process without a heartbeat, in the format of `failure`.

    Only process 0 checks the heartbeats.
    """
    if self._index != 0:
      return None
    now = time.monotonic()
    for key, value in self._store.key_value_dir_get(_PULSE):
      before, since = self._heartbeats.get(key, (None, now))
      if value != before:
        self._heartbeats[key] = (value, now)
      elif now - since >= self._heartbeat_timeout:
        index = int(key.rpartition('/')[2])
        limit = self._heartbeat_timeout
        sentence = f'it has sent no heartbeat for {limit:.0f} s'
        self._report(index, exit_codes.LOST_PEERS, sentence)
        return index, exit_codes.LOST_PEERS, sentence
    return None

  def _follow(self, index: int, ending: ExitCode, sentence: str) -> None:
    """Ends this process because another one failed."""
    if self._ended.wait(EXIT_GRACE_S):
      return
    with contextlib.suppress(Exception):
      if self.before_end is not None:
        self.before_end(ending, name_process(index, sentence))
    line = f'cdm: {ending.kind}: {name_process(index, sentence)}'
    print(f'\n{line}', file=sys.stderr, flush=True)
    self._go(ending)


_monitor: PeerMonitor | None = None
_abandoned = False


def start() -> None:
  """Starts the monitor of this process, in a run of several processes."""
  global _monitor
  import jax

  # JAX has no public name for the client; Orbax and Flax import this one too.
  from jax._src import distributed

  heartbeat, close = (
    timeouts.seconds(each, processes=jax.process_count())
    for each in (timeouts.HEARTBEAT, timeouts.CLOSE)
  )
  _monitor = PeerMonitor(
    distributed.global_state.client,
    jax.process_index(),
    jax.process_count(),
    heartbeat_timeout=heartbeat,
    close_timeout=close,
  )
  _monitor.start()
  # Exit handlers run in reverse order. This one is registered after JAX's, so
  # it runs first, and the store exists until all processes have closed.
  atexit.register(_monitor.close)


def is_running() -> bool:
  """Returns whether this process is one of several that are monitored."""
  return _monitor is not None


def must_leave() -> bool:
  """Returns whether this process, when it fails, has to end by `leave`."""
  return _monitor is not None or _abandoned


def call_before_exit(function: Callable[[ExitCode, str], None]) -> None:
  """Sets a callback for an exit that the failure of another process causes.

  Args:
    function: called as `function(exit_code, sentence)` just before this process
      exits. It is not called if this process is the only one of its run.
  """
  if _monitor is not None:
    _monitor.before_end = function


def send_heartbeat_while(is_alive: Callable[[], bool]) -> None:
  """Sets what decides whether this process still sends its heartbeat.

  Args:
    is_alive: returns False while the work of this process hangs. The heartbeat
      comes from a thread of its own, which lives on when the work does not.
  """
  if _monitor is not None:
    _monitor.is_alive = is_alive


def report(ending: ExitCode, sentence: str) -> None:
  """Tells the other processes that this one failed; it must then end."""
  if _monitor is not None:
    _monitor.report(ending, sentence)


def explain(error: Any) -> None:
  """Attaches the failure of another process to the error that it caused.

  It sets the attributes `ending` and `sentence`, which `exit_codes` reads. It
  does so for faults of the program too, because not every message of a runtime
  that has lost its peer is known.

  Args:
    error: an exception.
  """
  if _monitor is None or exit_codes.classify(error) not in (
    exit_codes.LOST_PEERS,
    exit_codes.FAULT,
  ):
    return
  with contextlib.suppress(Exception):
    failure = _monitor.failure(wait=2.0)
    if failure is not None:
      index, ending, sentence = failure
      error.ending, error.sentence = ending, name_process(index, sentence)


def abandon() -> None:
  """From now on, `leave` ends this process although it has no monitor.

  Called when the processes did not find each other. A thread then still waits
  for them, and JAX's exit handlers would wait with it and abort the process.
  """
  global _abandoned
  _abandoned = True


def leave(ending: ExitCode, sentence: str) -> None:
  """Ends this process, which failed; does nothing in a single-process run."""
  if _monitor is not None:
    _monitor.leave(ending, sentence)
  if _abandoned:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(Exception):
        stream.flush()
    os._exit(ending.code)


def name_process(index: int, sentence: str) -> str:
  """Returns `sentence`, the reason of a failure, with its process named."""
  return f'process {index}: {sentence}'
