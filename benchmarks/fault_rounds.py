"""Lets faults happen to a run of four processes, which must end the same.

  python benchmarks/fault_rounds.py --folder=DIR [--rounds=50] [--by=slurm]
      [--kinds=kill,stop,...] [--seed=0]

Every round launches `cdm train` in four processes with launch/launch.py, on a
SLURM of this machine (`slurm_daemons.sh`) or with the target `local`, and lets
one fault happen to it while it trains. Nobody helps: the launcher alone starts
the run again. A round is good if the run completes within --limit seconds of
the fault, and ends bit for bit as a run without a fault: every array of the
last checkpoint, the position in the data, all log lines but their timings, the
best checkpoint.

  kill            SIGKILL of one process
  stop            SIGSTOP of one process, which nobody continues
  read            three reads of one process fail with EIO
  read lasting    every read of one process fails with EIO until it ends
  read never      a read of one process never returns
  slow read       a read of one process returns after 60 s
  slow save       the same of a file that process 0 writes into a checkpoint
  save full       the disk is full for 20 s (a tmpfs; needs root)
  save error      writes of one process fail with EIO for 20 s (needs strace)
  clock ahead     the clock of one process jumps by an hour, or back by one:
  clock back      only time.time, and not that of C++

One line of JSON for each round goes to DIR/rounds.jsonl, and rounds that are
there are not run again, so the command may be ended and started at any time.
What differs stays in DIR. Exits with 1 unless every round was good.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import (  # noqa: E402
  fault_launchers,
  fault_process,
  file_calls,
  kill_soak,
  scale,
)
from benchmarks.fault_launchers import read_text  # noqa: E402

PROCESSES, STEPS, SAVE_EVERY, LOG_EVERY = 4, 120, 10, 5
OVERRIDES = scale.OVERRIDES | {
  'train.num_steps': STEPS,
  'train.log_every_steps': LOG_EVERY,
  'train.save_every_steps': SAVE_EVERY,
  'train.sample_every_steps': 0,
  'eval.every_steps': STEPS // 2,
}
KINDS = (
  *('kill', 'stop', 'read', 'read lasting', 'read never'),
  *('slow read', 'slow save', 'save full', 'save error'),
  *('clock ahead', 'clock back'),
)
ROUNDS, INJECTED = 'rounds.jsonl', 'injected'
DISK_BYTES = 256 << 20  # of the tmpfs that is filled
FAULT_SECONDS = 20.0  # how long a fault from outside lasts
START_SECONDS = 900.0  # until the first log line
POLL_SECONDS = 0.2
# What the launchers print when a start has ended.
ENDED = re.compile(r'(exit code \d+), job|(the run .+); restart \d+')


class Round:
  """One run, and what happens to it."""

  def __init__(self, folder, home, launcher, plan):
    """Prepares the run.

    Args:
      folder: of all rounds.
      home: of this one.
      launcher: `Slurm` or `Local`.
      plan: {'kind': of the fault, 'process': whom it meets, 'step': when}; the
        kind '' lets nothing happen.
    """
    self.folder, self.home, self.launcher = folder, home, launcher
    self.plan, self.workdir = plan, home / 'disk' / 'run'

  def launch(self):
    """Starts the run."""
    self.workdir.parent.mkdir(parents=True)
    if self.plan['kind'] == 'save full':
      mount(self.workdir.parent)
    path = self.home / 'plan.json'
    places = {
      'data': str(self.folder / 'data'),
      'workdir': str(self.workdir),
    }
    path.write_text(json.dumps(self.plan | places), encoding='utf-8')
    paths = [self.folder / 'start', ROOT, os.environ.get('PYTHONPATH')]
    words = [f'--config.{key}={value}' for key, value in OVERRIDES.items()]
    self.launcher.launch(
      self.home,
      [f'--config={self.folder / "scale.py"}', f'--workdir={self.workdir}']
      + words,
      os.environ
      | self.launcher.environment
      | {
        fault_process.PLAN: str(path),
        'PYTHONPATH': os.pathsep.join(str(p) for p in paths if p),
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': '1',
        'XLA_FLAGS': '--xla_backend_optimization_level=0',
        'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'xla'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      },
    )

  def last_row(self):
    """-> the step of the last line of the log, or 0."""
    text = read_text(self.workdir / 'scalars.jsonl')
    steps = re.findall(r'^{"step": (\d+),', text, re.MULTILINE)
    return int(steps[-1]) if steps else 0

  def reaches(self, step, seconds):
    """Waits for a log line. -> seconds waited, or None if it did not come."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
      if self.last_row() >= step:
        return time.monotonic() - began
      if self.launcher.ended():
        return time.monotonic() - began if self.last_row() >= step else None
      time.sleep(POLL_SECONDS)
    return None

  def ends(self, seconds):
    """Waits for the end of the run. -> whether it came."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
      if self.launcher.ended():
        return True
      time.sleep(POLL_SECONDS)
    return False

  def fail(self):
    """Lets the fault begin, and end if it does so from outside."""
    kind = self.plan['kind']
    if kind in fault_process.INSIDE:
      (self.home / fault_process.ARMED).touch()
      return
    path = self.home / f'pid{self.plan["process"]}'
    pid = int(path.read_text(encoding='utf-8'))
    if kind == 'kill':
      os.kill(pid, signal.SIGKILL)
    elif kind == 'stop':
      os.kill(pid, signal.SIGSTOP)
    elif kind == 'save full':
      fill(self.workdir.parent)
    elif kind == 'save error':
      fail_writes(pid, self.home / INJECTED)

  def happened(self):
    """-> whether the fault has met the run."""
    if self.plan['kind'] in fault_process.INSIDE:
      return (self.home / fault_process.TAKEN).exists()
    if self.plan['kind'] == 'save error':
      return 'INJECTED' in read_text(self.home / INJECTED)
    return True

  def starts(self):
    """-> how the starts ended, as the launcher told."""
    return [
      next(filter(None, match.groups()))
      for match in ENDED.finditer(self.launcher.said())
    ]


def mount(place):
  """Makes a small disk of a folder."""
  options = f'size={DISK_BYTES}'
  words = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(place)]
  subprocess.run(words, check=True)


def fill(place):
  """Leaves no space on the disk of a folder for a while."""
  path = place / 'filler'
  try:
    with contextlib.suppress(OSError), open(path, 'wb', buffering=0) as file:
      while True:
        file.write(bytes(1 << 20))
    time.sleep(FAULT_SECONDS)
  finally:
    path.unlink()


def fail_writes(pid, record):
  """Lets every write of a process to a file fail for a while.

  Sockets are written by other calls.

  Args:
    pid: of the process.
    record: path of a file for the calls that failed.
  """
  calls = 'pwrite64,pwritev,fsync,fdatasync'
  strace = subprocess.Popen(
    ['strace', '-f', '-qq', '-o', str(record), '-p', str(pid)]
    + ['-e', f'trace={calls}', '-e', f'inject={calls}:error=EIO']
  )
  time.sleep(FAULT_SECONDS)
  strace.terminate()
  strace.wait()


def planned(number, kinds, seed):
  """-> the plan of a round; the kinds take turns."""
  rng = random.Random(f'{seed}/{number}')
  kind = kinds[number % len(kinds)]
  process = rng.randrange(PROCESSES)
  step = rng.randrange(SAVE_EVERY + LOG_EVERY, STEPS // 2)
  if kind in ('slow save', 'save error'):
    # It writes the files that Python opens, and all arrays of a network that is
    # so small.
    process = 0
  return {'kind': kind, 'process': process, 'step': step}


def play(this, expected, limit):
  """Plays a round. -> what is to be recorded.

  Args:
    this: the Round.
    expected: the result of a run without a fault.
    limit: seconds in which the run has to make steps again, and to end.
  """
  this.launch()
  began = time.monotonic()
  found = {}
  if this.reaches(this.plan['step'], START_SECONDS) is None:
    found['verdict'] = 'did not reach the step of the fault'
  else:
    row, fault = this.last_row(), time.monotonic()
    this.fail()
    # More than one line ahead: the steps in flight at the fault do not count.
    back = this.reaches(min(row + 4 * LOG_EVERY, STEPS), limit)
    took = None if back is None else round(time.monotonic() - fault, 1)
    found['recovered_seconds'] = took
    found['verdict'] = verdict(this, expected, limit)
  if not this.launcher.ended():
    this.launcher.end()
  return found | {
    'starts_ended': this.starts(),
    'seconds': round(time.monotonic() - began, 1),
  }


def verdict(this, expected, limit):
  """-> 'same', or what is wrong with a run that the fault has met."""
  if not this.ends(limit):
    return f'has not ended {limit:.0f} s after the fault'
  if not (this.workdir / 'checkpoints' / str(STEPS)).is_dir():
    return f'ended for good at step {this.last_row()}'
  if not this.happened():
    return 'the fault did not happen'
  changed = kill_soak.differences(
    kill_soak.result(this.workdir, STEPS), expected
  )
  return f'differs: {changed[:5]}' if changed else 'same'


def clean(this):
  """Removes what a round has left."""
  if this.plan['kind'] == 'save full':
    subprocess.run(['umount', '-l', this.workdir.parent], check=False)
  shutil.rmtree(this.home)


def without_fault(folder, launcher):
  """-> the result of a run to which nothing happens; made once."""
  home = folder / 'whole'
  whole = Round(folder, home, launcher, {'kind': '', 'process': -1})
  if not (whole.workdir / 'checkpoints' / str(STEPS)).is_dir():
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    whole.launch()
    if not whole.ends(2 * START_SECONDS):
      launcher.end()
      sys.exit('The run without a fault did not end.')
  return kill_soak.result(whole.workdir, STEPS)


def summary(rows):
  """-> lines of Markdown: the rounds of every kind."""
  lines = [
    '| fault | rounds | ended the same | how starts ended | steps after |',
    '|---|---:|---:|---|---:|',
  ]
  for kind in KINDS:
    of = [row for row in rows if row['kind'] == kind]
    if not of:
      continue
    same = sum(row['verdict'] == 'same' for row in of)
    ends = sorted({text for row in of for text in row['starts_ended']})
    took = [row.get('recovered_seconds') for row in of]
    slowest = max((s for s in took if s is not None), default=None)
    lines.append(
      f'| {kind} | {len(of)} | {same} | {", ".join(ends) or "none ended"} | '
      f'{"never" if slowest is None else f"{slowest:.0f} s at most"} |'
    )
  return lines


def lacking(kinds, by):
  """-> what this machine lacks for the rounds, as a sentence; None if nothing.

  Args:
    kinds: of the faults.
    by: the launcher.
  """
  if by == 'slurm' and not shutil.which('sbatch'):
    return 'SLURM is not installed: apt install slurm-wlm munge.'
  if 'save full' in kinds and os.getuid():
    return "Only root mounts the disk of 'save full'; leave it out of --kinds."
  if 'save error' in kinds and (reason := file_calls.unavailable()):
    return f"'save error' needs strace: {reason}."
  return None


def read_rounds(path):
  """-> the rounds on record."""
  return [json.loads(text) for text in read_text(path).splitlines()]


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--rounds', type=int, default=50)
  ways = fault_launchers.LAUNCHERS
  parser.add_argument('--by', choices=ways, default='slurm')
  parser.add_argument('--kinds', default=','.join(KINDS))
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--limit', type=float, default=900.0, metavar='SECONDS')
  args = parser.parse_args()
  kinds = args.kinds.split(',')
  if unknown := set(kinds) - set(KINDS):
    parser.error(f'unknown kinds {sorted(unknown)}; known are {KINDS}')
  if sentence := lacking(kinds, args.by):
    parser.error(sentence)
  folder = args.folder.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  scale.write_data(folder)
  fault_process.write_start_folder(folder / 'start')
  path = folder / ROUNDS
  with ways[args.by](folder, PROCESSES) as launcher:
    expected = without_fault(folder, launcher)
    done = {row['round'] for row in read_rounds(path)}
    for number in sorted(set(range(args.rounds)) - done):
      home = folder / f'round{number}'
      plan = planned(number, kinds, args.seed)
      this = Round(folder, home, launcher, plan)
      if home.exists():  # It was being played when this was ended.
        clean(this)
      home.mkdir()
      row = {'round': number, 'by': args.by} | plan
      row |= play(this, expected, args.limit)
      with open(path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(row) + '\n')
      print(json.dumps(row), flush=True)
      if row['verdict'] == 'same':
        clean(this)
  rows = read_rounds(path)
  print('\n'.join(summary(rows)))
  same = sum(row['verdict'] == 'same' for row in rows)
  print(f'{same} of {len(rows)} ended the same', flush=True)
  if same != len(rows):
    sys.exit(1)


if __name__ == '__main__':
  main()
