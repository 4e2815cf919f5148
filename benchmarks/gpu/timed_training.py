"""Trains with `cdm train` for some minutes, then lets the run save and end.

The minutes count from the start of the process, so they hold its imports and
its compilation. A SIGTERM to the job ends the training too; what follows it in
the job then has little time.
"""

import json
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Complete, stopped by SIGTERM with a checkpoint, or just when it had ended.
SAVED = (0, 75, -signal.SIGTERM)
GRACE_SECONDS = 120.0  # for the step, its evaluation and the checkpoint
# A run that is to end by the clock and not by its number of steps.
ENDLESS = 10_000_000
SMOKE_MINUTES = 60.0  # a test ends after some steps


class Stopped:
  """Whether this process was asked to end; its handler while entered.

  Attributes:
    asked: True after a SIGTERM.
  """

  def __init__(self):
    self.asked = False
    self._child = None

  def __enter__(self):
    self._before = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(self, *_):
    signal.signal(signal.SIGTERM, self._before)

  def _ask(self, *_):
    self.asked = True
    if self._child is not None and self._child.poll() is None:
      self._child.send_signal(signal.SIGTERM)

  def run(self, words, *, seconds, env=None):
    """Runs a program for so long, then asks it to end; -> its exit code."""
    self._child = subprocess.Popen(words, cwd=ROOT, env=env)
    end = time.monotonic() + seconds
    asked = None
    while self._child.poll() is None:
      now = time.monotonic()
      if asked is None and (now > end or self.asked):
        asked = now
        if not self.asked:  # the handler has sent it
          self._child.send_signal(signal.SIGTERM)
      if asked is not None and now - asked > GRACE_SECONDS:
        self._child.kill()
      time.sleep(0.2)
    return self._child.returncode


def train(words, workdir, *, minutes, stopped):
  """Trains for some minutes; the work directory then holds a checkpoint.

  Args:
    words: of `cdm train`, without --workdir.
    workdir: a new work directory.
    minutes: time of the process, see `SMOKE_MINUTES`.
    stopped: `Stopped`, entered.

  Returns:
    The figures of the training, a dict.

  Raises:
    SystemExit: the training ended with an error; it has printed which.
  """
  words = [sys.executable, '-m', 'cdm', 'train', *words]
  words += [f'--workdir={workdir}']
  print('$', *words[2:], flush=True)
  began = time.monotonic()
  code = stopped.run(words, seconds=60 * minutes)
  if code not in SAVED:
    raise SystemExit(f'The training ended with {code}; see above.')
  steps = checkpoints(workdir)
  if not steps:
    raise SystemExit(
      f'The training has no checkpoint after {minutes:g} minutes; give it more '
      'minutes, because compiling took all of them.'
    )
  return {
    'training_seconds': time.monotonic() - began,
    'steps': steps[-1],
    **last_scalars(pathlib.Path(workdir) / 'scalars.jsonl'),
  }


def checkpoints(workdir):
  """Returns the steps of the checkpoints of a run, in ascending order."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  return sorted(int(p.name) for p in folder.glob('*') if p.name.isdecimal())


def last_scalars(path):
  """Returns the last value of every scalar of a run that tells how it went."""
  wanted = {
    'loss': 'loss',
    'images_per_second': 'images_per_second',
    'held_out/ema_loss': 'held_out_ema_loss',
    'data_wait_fraction': 'data_wait_fraction',
    'mfu': 'mfu',
  }
  found = {}
  for line in path.read_text(encoding='utf-8').splitlines():
    row = json.loads(line)
    found |= {wanted[name]: row[name] for name in wanted if name in row}
  return found
