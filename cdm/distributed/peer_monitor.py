"""Keeps the processes of a run together: what ends one ends all, and soon.

One that fails says why in the key-value store that JAX's coordination service
keeps, and all end with its code. One that vanishes is missed by its pulse.
Left to the runtime, the others would wait in a collective for minutes and then
be aborted, without a word about the reason.
"""

import atexit
import contextlib
import json
import os
import sys
import threading
import time

from cdm.distributed import exit_codes

POLL_INTERVAL_S = 1.0  # between two looks for a failure
HEARTBEAT_INTERVAL_S = 10.0
# Without a pulse. JAX's own patience is 100 s, and it aborts.
HEARTBEAT_TIMEOUT_S = 60.0
# In which a process ends by itself, where the same goes wrong in all of them.
EXIT_GRACE_S = 5.0
# For the first process to end, which may still be writing for all of them;
# JAX would wait for five minutes, and then abort who waits.
CLOSE_TIMEOUT_S = 3600.0

_FAILED, _GONE, _PULSE = 'cdm/failed', 'cdm/gone/', 'cdm/pulse/'
_CLOSED = 'cdm/closed'


class PeerMonitor:
  """This process's part in keeping all of them together; a thread watches.

  Attributes:
    before_end: (Ending, sentence) -> None, called in the watching thread just
      before this process is ended for the failure of another; or None.
  """

  def __init__(self, store, index, count, *, end=os._exit):
    """Args:

    store: client of JAX's coordination service.
    index: number of this process.
    count: how many there are.
    end: ends the process with a code, at once.
    """
    self.before_end = None
    self._store, self._index, self._count = store, index, count
    self._exit = end
    self._ended = threading.Event()
    self._pulses, self._beaten = {}, -HEARTBEAT_INTERVAL_S
    self._thread = threading.Thread(
      target=self._watch, name='company', daemon=True
    )

  def start(self):
    """Begins to watch."""
    self._thread.start()

  def close(self):
    """This process ends as it should, after the first one."""
    with contextlib.suppress(Exception):  # the store may be gone
      if self._index == 0:
        self._store.key_value_set(_CLOSED, '', allow_overwrite=True)
      deadline = time.monotonic() + CLOSE_TIMEOUT_S
      while time.monotonic() < deadline and self._get(_CLOSED) is None:
        time.sleep(0.1)
    self._ended.set()
    self._thread.join(timeout=10)

  def failure(self, wait=0.0):
    """-> (number of the process that failed first, Ending, sentence) or None.

    Args:
      wait: seconds; the news may be a moment behind what it caused.
    """
    deadline = time.monotonic() + wait
    while True:
      text = self._get(_FAILED)
      if text is not None:
        index, kind, code, sentence = json.loads(text)
        return index, exit_codes.ExitCode(kind, code), sentence
      if time.monotonic() >= deadline:
        return None
      time.sleep(0.1)

  def leave(self, ending, sentence):
    """Ends this process, which failed, and tells the others. Never returns."""
    self._ended.set()
    with contextlib.suppress(Exception):  # whatever happens, it is to end
      self._report(self._index, ending, sentence)
    self._go(ending)

  def _report(self, index, ending, sentence):
    with contextlib.suppress(Exception):  # the first one stands
      words = json.dumps([index, *ending, sentence])
      self._store.key_value_set(_FAILED, words)

  def _go(self, ending):
    """Ends the process; the one that keeps the store ends last."""
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
    # Not sys.exit: JAX would wait for the others on its way out.
    self._exit(ending.code)

  def _get(self, key):
    try:
      return self._store.key_value_try_get(key)
    except Exception as error:  # noqa: BLE001 (JAX raises a kind of its own)
      if 'NOT_FOUND' in str(error):
        return None
      raise

  def _watch(self):
    while not self._ended.wait(POLL_INTERVAL_S):
      try:
        self._beat()
        failure = self.failure() or self._missed()
      except Exception:  # noqa: BLE001
        # The store is gone, and with it process 0: JAX ends this one.
        continue
      if failure is not None:
        self._follow(*failure)
        return

  def _beat(self):
    now = time.monotonic()
    if now - self._beaten >= HEARTBEAT_INTERVAL_S:
      self._beaten = now
      self._store.key_value_set(
        f'{_PULSE}{self._index}', str(now), allow_overwrite=True
      )

  def _missed(self):
    """-> as `failure`: a process without a pulse; process 0 looks for it."""
    if self._index != 0:
      return None
    now = time.monotonic()
    for key, value in self._store.key_value_dir_get(_PULSE):
      before, since = self._pulses.get(key, (None, now))
      if value != before:
        self._pulses[key] = (value, now)
      elif now - since >= HEARTBEAT_TIMEOUT_S:
        index = int(key.rpartition('/')[2])
        sentence = f'it has not been heard of for {HEARTBEAT_TIMEOUT_S:.0f} s'
        self._report(index, exit_codes.LOST_PEERS, sentence)
        return index, exit_codes.LOST_PEERS, sentence
    return None

  def _follow(self, index, ending, sentence):
    """Ends this process because another one failed."""
    if self._ended.wait(EXIT_GRACE_S):
      return
    with contextlib.suppress(Exception):
      if self.before_end is not None:
        self.before_end(ending, name_process(index, sentence))
    line = f'cdm: {ending.kind}: {name_process(index, sentence)}'
    print(f'\n{line}', file=sys.stderr, flush=True)
    self._go(ending)


_monitor = None


def start():
  """Watches over this run of several processes from now on."""
  global _monitor
  import jax

  # Where Orbax and Flax find it too; there is no public name for it.
  from jax._src import distributed

  _monitor = PeerMonitor(
    distributed.global_state.client, jax.process_index(), jax.process_count()
  )
  _monitor.start()
  # After JAX's own, so before it: the store is there until all have closed.
  atexit.register(_monitor.close)


def is_running():
  """-> whether this process is one of several."""
  return _monitor is not None


def call_before_exit(function):
  """Calls (Ending, sentence) where another process's failure ends this one."""
  if _monitor is not None:
    _monitor.before_end = function


def explain(error):
  """Gives an error that another process's failure caused the reason for it.

  Of a runtime that lost its peer not every message is known: faults are asked
  about too.
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


def leave(ending, sentence):
  """Ends a process that failed; returns where it is the only one."""
  if _monitor is not None:
    _monitor.leave(ending, sentence)


def name_process(index, sentence):
  """-> what is said of another process's failure."""
  return f'process {index}: {sentence}'
