"""Runs one framework of `train_step.py` in a process of its own.

Two frameworks in one process would fight for the cores with their pools of
threads, and nobody could tell their memory apart. So each has a process, which
answers one request, a line of JSON on stdin, with one line of JSON on stdout,
and sleeps until the next: while one framework computes, the others wait for
input. A process ends when its stdin is closed, so none outlives the script.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
_STATUS = pathlib.Path('/proc/self/status')
_CLEAR = pathlib.Path('/proc/self/clear_refs')


class Failed(Exception):
  """A process refused a request or ended; the text says why."""


class Worker:
  """A process that answers requests; the side of the script."""

  def __init__(
    self,
    script: str | pathlib.Path,
    job: Mapping[str, Any],
    *,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
  ):
    """Starts the process and gives it its job.

    Args:
      script: Python file whose main program calls `serve`.
      job: its first request.
      python: the interpreter.
      environment: variables beside those of this process.

    Raises:
      Failed: the process refuses its job, or cannot be started.
    """
    self._log = tempfile.TemporaryFile('w+', encoding='utf-8')
    path = os.pathsep.join(
      [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    )
    try:
      self._process = subprocess.Popen(
        [python, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._log,
        text=True,
        encoding='utf-8',
        env={**os.environ, 'PYTHONPATH': path, **(environment or {})},
      )
    except OSError as error:
      self._log.close()
      raise Failed(f'{python} cannot be started: {error.strerror}.') from error
    try:
      self.ready = self.ask(**job)
    except Failed:
      self.close()
      raise

  def ask(self, **request: Any) -> dict[str, Any]:
    """Returns the answer to a request; blocks until it comes.

    Raises:
      Failed: the request is refused, or the process has ended.
    """
    try:
      self._process.stdin.write(json.dumps(request) + '\n')
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except (OSError, ValueError):
      line = ''
    if not line:
      raise Failed(self._why_it_ended())
    answer = json.loads(line)
    if 'error' in answer:
      raise Failed(answer['error'])
    return answer

  def close(self) -> None:
    """Ends the process. Its memory is free when this returns."""
    self._process.kill()
    self._process.wait()
    for stream in (self._process.stdin, self._process.stdout):
      try:
        stream.close()
      except OSError:  # There is a request that was never read.
        pass
    self._log.close()

  def _why_it_ended(self):
    code = self._process.wait()
    self._log.seek(0)
    said = [line.strip() for line in self._log if line.strip()]
    how = f'signal {-code}' if code < 0 else f'exit code {code}'
    return f'its process ended ({how}): {said[-1] if said else "no message"}'


def serve(start: Callable[..., Mapping[str, Callable]]) -> None:
  """Answers requests until stdin is closed; the side of the process.

  Args:
    start: (**job) -> {name: function of a request's other keys -> dict}.
      The answer to the job is that of the function 'ready'.
  """
  # Libraries may print to stdout, which is reserved for the answers, so file
  # descriptor 1 becomes stderr.
  output = os.fdopen(os.dup(1), 'w', encoding='utf-8')
  os.dup2(2, 1)
  functions: Mapping[str, Callable] = {}
  for line in sys.stdin:
    request = json.loads(line)
    try:
      if not functions:
        functions = start(**request)
        answer = functions['ready']()
      else:
        answer = functions[request.pop('do')](**request)
    except Exception as error:  # Frameworks raise anything, as for no memory.
      traceback.print_exc()
      first = (str(error).strip() or 'no message').splitlines()[0]
      answer = {'error': f'{type(error).__name__}: {first}'}
    output.write(json.dumps(answer) + '\n')
    output.flush()


def forget_peak() -> None:
  """Makes `peak_bytes` count from now, where Linux permits it."""
  try:
    _CLEAR.write_text('5', encoding='utf-8')
  except OSError:  # Another system, or a container that does not permit it.
    pass


def peak_bytes() -> int:
  """Returns the most memory that this process has held, in bytes."""
  if _STATUS.exists():
    for line in _STATUS.read_text(encoding='utf-8').splitlines():
      if line.startswith('VmHWM:'):
        return int(line.split()[1]) * 1024
  most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return most if sys.platform == 'darwin' else most * 1024
