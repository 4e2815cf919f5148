"""Asks a process of its own for one plan, and says how long it has taken.

Compiling takes minutes and gigabytes, cannot be interrupted from Python, may
end the process, and the number of CPU devices is settled once per process.
"""

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

from cdm.distributed import device_specs

EVERY_SECONDS = 60.0  # where there is no terminal


def check(topologies):
  """-> [Slice, ...] of topologies that can be planned here.

  Raises:
    ValueError: one that is misspelt, or a TPU where there is no compiler.
  """
  pieces = [device_specs.parse(topology) for topology in topologies]
  tpu = [piece.topology for piece in pieces if piece.kind != device_specs.CPU]
  system, machine = platform.system(), platform.machine()
  if tpu and (system, machine) not in (
    ('Linux', 'x86_64'),
    ('Linux', 'AMD64'),
  ):
    raise ValueError(
      f'--topology={tpu[0]}: the TPU compiler (libtpu) exists for Linux on '
      f'x86-64 only, and this is {system} on {machine}; run `cdm plan` there, '
      'in a container for example, or plan for --topology=cpu:8.'
    )
  if tpu and importlib.util.find_spec('libtpu') is None:
    raise ValueError(
      f'--topology={tpu[0]}: the TPU compiler (libtpu) is not installed; no '
      "TPU is needed for it: pip install 'cdm[plan]', from a checkout with "
      "pip install --constraint constraints.txt '.[plan]'."
    )
  return pieces


def compile_in_process(request, *, label, stream=None):
  """Runs `measure` of a request in a process of its own.

  Args:
    request: see `compilation.measure`.
    label: what is being done, for the line of progress.
    stream: where progress goes; stderr by default.

  Returns:
    What `measure` returned.

  Raises:
    ValueError: what `measure` refused.
    OSError: the process ended without an answer.
  """
  stream = sys.stderr if stream is None else stream
  with tempfile.TemporaryFile('w+') as said:
    process = subprocess.Popen(
      [sys.executable, '-m', 'cdm.planning.compilation'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=said,
      text=True,
      env=environment(),
    )
    try:
      process.stdin.write(json.dumps(request))
      process.stdin.close()
      wait(process, label, stream)
      text = process.stdout.read()
    finally:
      process.kill()
      process.wait()
      process.stdout.close()
    said.seek(0)
    words = said.read()
  if not text:
    raise OSError(ended(request['topology'], process.returncode, words))
  answer = json.loads(text)
  if 'error' in answer:
    raise ValueError(answer['error'])
  return answer['facts']


def wait(process, label, stream):
  """Until the process ends: a line that counts on a terminal, a few else."""
  start = shown = time.monotonic()
  terminal = stream.isatty()
  if not terminal:
    print(f'{label} ...', file=stream, flush=True)
  while True:
    try:
      # Its answer is smaller than what a pipe holds.
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


def environment():
  """-> the variables of a process that compiles and owns no accelerator."""
  here = str(pathlib.Path(__file__).resolve().parents[2])
  flags = re.sub(
    r'--xla_force_host_platform_device_count=\S*',
    '',
    os.environ.get('XLA_FLAGS', ''),
  )
  paths = [here, os.environ.get('PYTHONPATH', '')]
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    'XLA_FLAGS': flags.strip(),
    # Ask no metadata server what this machine is, and share libtpu.
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TF_CPP_MIN_LOG_LEVEL': '3',
  }


def ended(topology, code, said):
  """-> one sentence about a process that gave no answer, then its words."""
  lines = said.strip().splitlines()
  if code == -signal.SIGKILL:
    return (
      f'Compiling for {topology} was killed from outside, as happens where '
      'this machine runs out of memory: the compiler of a large network takes '
      'several GB. Plan one topology at a time, or on a larger machine.'
    )
  how = f'signal {-code}' if code < 0 else f'code {code}'
  rest = '\n'.join(lines[-40:])
  return f'Compiling for {topology} ended with {how}; it said:\n{rest}'


def keep():
  """-> folder of what was compiled before, in the user's cache."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return str(pathlib.Path(home) / 'cdm' / 'plan')
