"""Compiles a program in a child process and shows the time that it takes.

A child process is needed because compiling takes minutes and gigabytes, cannot
be interrupted from Python and may crash the process, and because the number of
simulated CPU devices is fixed when JAX starts.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import TextIO

from cdm.data import shell_commands
from cdm.distributed import device_specs, user_cache
from cdm.planning import plan_types

_KILL = getattr(signal, 'SIGKILL', 9)  # Windows has no such name.
EVERY_SECONDS = 60.0  # between lines of progress if stderr is not a terminal


def check(topologies: Iterable[str]) -> list[device_specs.Slice]:
  """Parses topologies and checks that this machine can compile for them.

  Raises:
    ValueError: a topology is misspelt, or is a TPU slice and this machine has
      no TPU compiler.
  """
  pieces = [device_specs.parse(topology) for topology in topologies]
  tpu = [piece.topology for piece in pieces if piece.is_tpu]
  system, machine = platform.system(), platform.machine()
  if tpu and (system, machine) not in (
    ('Linux', 'x86_64'),
    ('Linux', 'AMD64'),
  ):
    raise ValueError(
      f'--topology={tpu[0]}: the TPU compiler (libtpu) exists for Linux on '
      f'x86-64 only, but this is {system} on {machine}; run `cdm plan` on such '
      'a machine or in a container, or plan for --topology=cpu:8.'
    )
  if tpu and importlib.util.find_spec('libtpu') is None:
    pinned = '--constraint', 'constraints.txt', '.[plan]'
    raise ValueError(
      f'--topology={tpu[0]}: the TPU compiler (libtpu) is not installed. It '
      f'needs no TPU. Run: {shell_commands.install("cdm[plan]")} (or, from a '
      f'checkout: {shell_commands.install(*pinned)})'
    )
  return pieces


def compile_in_process(
  request: plan_types.Request, *, label: str, stream: TextIO | None = None
) -> plan_types.Facts:
  """Runs `compilation.measure` in a child process.

  Args:
    request: see `compilation.measure`.
    label: text of the line of progress, e.g. 'compiling for v5e:2x2'.
    stream: where progress is written; stderr by default.

  Returns:
    What `compilation.measure` returned.

  Raises:
    ValueError: `compilation.measure` refused the request.
    OSError: the process ended without an answer.
  """
  stream = sys.stderr if stream is None else stream
  with tempfile.TemporaryFile('w+', encoding='utf-8') as log:
    process = subprocess.Popen(
      [sys.executable, '-m', 'cdm.planning.compilation'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=log,
      text=True,
      env=child_environment(),
      encoding='utf-8',
    )
    assert process.stdin is not None and process.stdout is not None
    try:
      # It stays open, so that the child notices when this process is killed.
      process.stdin.write(json.dumps(request) + '\n')
      process.stdin.flush()
      wait_with_progress(process, label, stream)
      text = process.stdout.read()
    finally:
      process.kill()
      process.wait()
      process.stdout.close()
      with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    log.seek(0)
    logged = log.read()
  if not text:
    raise OSError(exit_message(request['topology'], process.returncode, logged))
  answer = json.loads(text)
  if 'error' in answer:
    raise ValueError(answer['error'])
  return answer['facts']


def wait_with_progress(
  process: subprocess.Popen[str], label: str, stream: TextIO
) -> None:
  """Waits until the process ends and shows the seconds that have passed.

  On a terminal one line is updated every second; elsewhere a line is printed
  every `EVERY_SECONDS`.
  """
  start = shown = time.monotonic()
  terminal = stream.isatty()
  if not terminal:
    print(f'{label} ...', file=stream, flush=True)
  while True:
    try:
      # The answer need not be read meanwhile, because it is smaller than a
      # pipe's buffer.
      process.wait(timeout=1.0)
      break
    except subprocess.TimeoutExpired:
      now = time.monotonic()
    if terminal:
      print(f'\r{label}: {now - start:.0f} s ', end='', file=stream, flush=True)
    elif now - shown >= EVERY_SECONDS:
      shown = now
      print(f'{label}: {now - start:.0f} s', file=stream, flush=True)
  if terminal:
    print('\r' + ' ' * (len(label) + 12) + '\r', end='', file=stream)


def child_environment() -> dict[str, str]:
  """Returns the environment variables of the child process.

  They keep the process from using an accelerator.
  """
  root = str(pathlib.Path(__file__).resolve().parents[2])
  flags = re.sub(
    r'--xla_force_host_platform_device_count=\S*',
    '',
    os.environ.get('XLA_FLAGS', ''),
  )
  paths = [root, os.environ.get('PYTHONPATH', '')]
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    'XLA_FLAGS': flags.strip(),
    # With these, libtpu asks no metadata server about this machine, and several
    # processes may load it.
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TF_CPP_MIN_LOG_LEVEL': '3',
  }


def exit_message(topology: str, code: int, stderr: str) -> str:
  """Returns the error message about a process that ended without an answer.

  Args:
    topology: what the process compiled for.
    code: its exit code; negative for a signal.
    stderr: its output, of which the last lines are quoted.
  """
  lines = stderr.strip().splitlines()
  if code == -_KILL:
    return (
      f'Compiling for {topology} was killed from outside, as happens when '
      'this machine runs out of memory: compiling a large network takes '
      'several GB. Plan one topology at a time, or on a larger machine.'
    )
  how = f'signal {-code}' if code < 0 else f'code {code}'
  rest = '\n'.join(lines[-40:])
  return f'Compiling for {topology} ended with {how}; its output:\n{rest}'


def cache_folder() -> str | None:
  """Returns the folder for cached results, in the user's cache, or None."""
  try:
    return str(user_cache.folder('plan'))
  except OSError as error:
    user_cache.warn(f'results of compiling are not kept. {error}')
    return None
