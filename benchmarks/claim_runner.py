"""Runs the commands of a piece of `claims.py`, and counts what they cost.

CPU time is that of a command and all that it started, user and system, so it
means the same on a machine that other programs use too. Every attempt is a line
of usage.jsonl in the work directories: a command that ended well is not started
again, and an attempt that was stopped counts too. Only what a SIGKILL of this
script itself ended is not counted.
"""

import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from cdm.reporting import jsonl

ROOT = pathlib.Path(__file__).resolve().parent.parent
AGAIN = 75  # exit code: the same command goes on, as that of `cdm train`
ATTEMPTS = 5  # of a command that asks to be started again


class Usage(NamedTuple):
  """What all attempts of some commands took together, in hours."""

  cpu_core_hours: float
  wall_hours: float


class Runner:
  """Runs commands of cdm, each once.

  Attributes:
    workdirs: folder outside the repository for all that the commands write.
    names: {path: word}, the folders that `shown` replaces by a word.
  """

  def __init__(self, workdirs, names):
    self.workdirs, self.names = workdirs, names
    self._usage = workdirs / 'usage.jsonl'
    self._child, self._stopped = None, False
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._stop)

  def shown(self, words):
    """Returns a command as a reader types it, without this machine's paths."""
    text = 'cdm ' + ' '.join(words)
    # A folder before the folder that it is in.
    for path, name in sorted(self.names.items(), reverse=True):
      text = text.replace(str(path), name)
    return text

  def run(self, words, owner):
    """Runs `cdm WORDS` unless it ended well before; exits if it fails.

    Args:
      words: of the command, without 'cdm'.
      owner: name of the piece, for `usage`.
    """
    line = self.shown(words)
    if any(u['command'] == line and not u['code'] for u in self._attempts()):
      return
    print(f'+ {line}', flush=True)
    code = AGAIN
    for _ in range(ATTEMPTS):
      code = self._attempt(words, line, owner)
      if self._stopped:
        raise SystemExit(AGAIN)
      if code != AGAIN:
        break
    if code:
      log = self.workdirs / 'log.txt'
      raise SystemExit(f'{line}\nended with {code}; see {log}.')

  def _attempt(self, words, line, owner):
    """Runs the command once, and returns its exit code."""
    with open(self.workdirs / 'log.txt', 'ab') as log:
      log.write(f'+ {line}\n'.encode())
      log.flush()
      began = time.monotonic()
      self._child = subprocess.Popen(
        [sys.executable, '-m', 'cdm', *words], cwd=ROOT, stdout=log, stderr=log
      )
      _, status, used = os.wait4(self._child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    # Popen would wait for the process again.
    self._child.returncode, self._child = code, None
    spent = {
      'owner': owner,
      'command': line,
      'code': code,
      'cpu_seconds': round(used.ru_utime + used.ru_stime, 2),
      'wall_seconds': round(time.monotonic() - began, 2),
    }
    jsonl.append(self._usage, [spent])
    return code

  def usage(self, owner):
    """Returns what all attempts of all commands of a piece took."""
    spent = [u for u in self._attempts() if u['owner'] == owner]
    return Usage(
      *(
        round(sum(u[key] for u in spent) / 3600, 4)
        for key in ('cpu_seconds', 'wall_seconds')
      )
    )

  def _attempts(self):
    return jsonl.read(self._usage)

  def _stop(self, number, frame):
    """Passes SIGTERM or Ctrl-C on; `run` ends when the command has."""
    self._stopped = True
    if self._child is None:
      raise SystemExit(AGAIN)
    # Not by Popen, which may reap the process that `run` waits for.
    os.kill(self._child.pid, signal.SIGTERM)


def circumstances():
  """Returns what a row says about this machine and this code."""
  from importlib import metadata

  return {
    'hardware': f'{_processor()}, {len(os.sched_getaffinity(0))} cores',
    'commit': _git('rev-parse', 'HEAD')
    + ('+' if _git('status', '--porcelain', '--untracked-files=no') else ''),
    'versions': {
      'python': platform.python_version(),
      **{name: metadata.version(name) for name in ('jax', 'flax', 'numpy')},
    },
  }


def _processor():
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8')
  except OSError:
    return platform.processor()
  names = [
    line.partition(':')[2].strip()
    for line in text.splitlines()
    if line.startswith('model name')
  ]
  return names[0] if names else platform.machine()


def _git(*words):
  found = subprocess.run(
    ['git', *words], cwd=ROOT, capture_output=True, text=True, check=False
  )
  return found.stdout.strip()
