"""Waits, with patience, until the processes of a run have found each other.

`jax.distributed.initialize` cannot be interrupted, and when its time is up it
aborts the whole process (SIGABRT). So it runs in a thread of its own, with more
time than it needs, while the main thread watches the clock, the signals and
whether process 0 answers at all. gRPC, which connects the processes, would go
through an HTTP proxy that the environment names; the connection between
processes bypasses it.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping

from cdm.distributed import exit_codes, loopback, peer_monitor, timeouts
from cdm.distributed.exit_codes import ExitCode

# The variable that changes how long the processes wait for each other.
VARIABLE = timeouts.JOIN.variable
# How long process 0 may be silent before a warning says so. The processes of
# one machine start within this time of each other.
WARN_AFTER_S = 3.0
POLL_S = 0.1
PROBE_S = 1.0  # Between two attempts to reach process 0, and for each of them.
# JAX's own patience must end after ours, because it ends in SIGABRT.
JAX_MARGIN_S = 24 * 3600


class PeersNotFound(OSError):
  """The processes of a run did not find each other."""

  ending = exit_codes.NEVER_JOINED


class StoppedWaiting(Exception):
  """A signal asked this process to stop while it waited for the others."""

  def __init__(self, ending: ExitCode):
    super().__init__(
      'asked to stop while waiting for the other processes of the run; '
      'nothing had begun.'
    )
    self.ending = ending


def patience(
  environment: Mapping[str, str], processes: int | None = None
) -> float:
  """Returns how many seconds the processes wait for each other.

  Args:
    environment: environment variables, such as os.environ.
    processes: number of processes, or None to read it from `environment`.

  Raises:
    ValueError: the variable is not a positive number.
  """
  if processes is None:
    processes = timeouts.expected_processes(environment)
  return timeouts.seconds(
    timeouts.JOIN, processes=processes, environment=environment
  )


def wait(
  connect: Callable[[], object],
  *,
  seconds: float,
  address: Callable[[], str | None],
  index: Callable[[], int],
  stopped: Callable[[], ExitCode | None] | None = None,
) -> None:
  """Runs `connect`, which waits for the other processes, for limited time.

  After an error this process must end through `peer_monitor.leave`, as the
  command line does: `connect` may still wait in its thread.

  Args:
    connect: calls `jax.distributed.initialize`.
    seconds: how long to wait.
    address: returns HOST:PORT of process 0, or None while it is unknown.
    index: returns the index of this process, once the address is known.
    stopped: returns the exit code of a request to stop, or None.

  Raises:
    PeersNotFound: the processes did not find each other in time.
    StoppedWaiting: `stopped` returned an exit code.
    Exception: whatever `connect` raised.
  """
  attempt = _Attempt(connect)
  process_0 = _Process0(address)
  start, warned = time.monotonic(), False
  try:
    while not attempt.ended.wait(POLL_S):
      ending = stopped() if stopped is not None else None
      if ending is not None:
        raise StoppedWaiting(ending)
      waited = time.monotonic() - start
      late = WARN_AFTER_S <= waited < seconds
      silent = process_0.address is not None and process_0.silence is not None
      if late and silent and not warned:
        warned = True
        warn(_warning(process_0, index(), seconds))
      if waited >= seconds:
        raise PeersNotFound(_reason(process_0, index(), seconds))
  except BaseException:
    peer_monitor.abandon()
    raise
  finally:
    process_0.ended.set()
  if attempt.error is not None:
    # What JAX has begun must not be closed: its handlers would wait too.
    peer_monitor.abandon()
    raise attempt.error


class _Attempt:
  """Runs a function in a thread that does not keep the process alive."""

  def __init__(self, function: Callable[[], object]):
    self.error: BaseException | None = None
    self.ended = threading.Event()
    self._function = function
    threading.Thread(target=self._run, name='join', daemon=True).start()

  def _run(self) -> None:
    try:
      self._function()
    except BaseException as error:  # noqa: BLE001 (raised in the main thread)
      self.error = error
    self.ended.set()


class _Process0:
  """Finds out, in a thread of its own, whether process 0 answers.

  Attributes:
    address: HOST:PORT, or None while it is not known.
    silence: why process 0 could not be reached; None once it has answered.
    ended: set it to end the thread.
  """

  def __init__(self, address: Callable[[], str | None]):
    self.address: str | None = None
    self.silence: str | None = 'no answer yet'
    self.ended = threading.Event()
    self._address = address
    threading.Thread(target=self._run, name='probe', daemon=True).start()

  def _run(self) -> None:
    while True:
      self.address = self._address()
      if self.address is not None:
        self.silence = unreachable(self.address)
        if self.silence is None:
          return
      if self.ended.wait(PROBE_S):
        return


def _warning(process_0: _Process0, index: int, seconds: float) -> str:
  assert process_0.address is not None
  whom = 'process 0' if index else 'itself'
  text = (
    f'process {index} waits for {whom} at {process_0.address}, which does '
    f'not answer ({process_0.silence}); it gives up after {seconds:.0f} s.'
  )
  if index and loopback.is_loopback(process_0.address):
    text += (
      ' This address means the machine that uses it, so it is right only where '
      'process 0 runs on the same machine; otherwise give the address of the '
      'machine of process 0.'
    )
  return text


def _reason(process_0: _Process0, index: int, seconds: float) -> str:
  at = process_0.address
  if at is None:
    return (
      f'The address of process 0 was not detected within {seconds:.0f} s. Give '
      '--coordinator_address, --num_processes and --process_id.'
    )
  if process_0.silence is not None:
    what = 'did not answer' if index else 'cannot reach itself'
    return (
      f'Process 0 {what} at {at} within {seconds:.0f} s '
      f'({process_0.silence}). Give every process the address of the machine '
      'of process 0, with a port that can be reached from all machines.'
    )
  return (
    f'Process 0 answers at {at}, but after {seconds:.0f} s at least one of the '
    'other processes had not come. Start one on every host, let this address '
    f'be reached from all of them, or wait longer with {VARIABLE}=SECONDS.'
  )


def unreachable(address: str) -> str | None:
  """Returns why nobody answers at HOST:PORT, or None if somebody does."""
  host, port = split(address)
  try:
    with socket.create_connection((host, port), timeout=PROBE_S):
      return None
  except OSError as error:
    return error.strerror or str(error) or type(error).__name__
  except (ValueError, OverflowError) as error:  # The name or port is no such.
    return str(error)


def split(address: str) -> tuple[str, int]:
  """Returns (host, port) of HOST:PORT; IPv6 addresses stand in brackets."""
  host, _, port = address.rpartition(':')
  return host.removeprefix('[').removesuffix(']'), int(port)


@contextlib.contextmanager
def without_proxies() -> Generator[None, None, None]:
  """Hides HTTP proxies from gRPC, which reads them when it connects.

  A proxy leads out of a cluster and refuses or loses connections within it.
  Warns if there is one. The variables are back afterwards, so that downloads
  use the proxy.
  """
  # gRPC takes one from https_proxy and others; JAX warns of any such name.
  hidden = {
    name: value
    for name, value in os.environ.items()
    if name.lower().endswith('_proxy')
  }
  named = [n for n, v in hidden.items() if v and not n.lower().startswith('no')]
  if named:
    warn(
      f'{", ".join(named)}: the connection between the processes of this run '
      'bypasses this proxy.'
    )
  for name in hidden:
    del os.environ[name]
  try:
    yield
  finally:
    os.environ.update(hidden)


def warn(text: str) -> None:
  """Prints a warning to stderr."""
  print(f'cdm: warning: {text}', file=sys.stderr, flush=True)
