"""Launches a run of several processes for `fault_rounds`, and asks after it.

Both ways go through launch/launch.py as a user does, and leave it to the
launcher to start the run again.
"""

import contextlib
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = 'cdm-faults'  # of the job


def _command(target, *words):
  """-> the words that launch a run with this environment's Python."""
  launcher = [sys.executable, ROOT / 'launch' / 'launch.py', target]
  return [*launcher, f'--name={NAME}', f'--python={sys.executable}', *words]


class Slurm:
  """Launches a run on the SLURM of this machine."""

  def __init__(self, folder, processes):
    self._processes = processes
    self._folder = folder / 'slurm'
    self.environment = {'SLURM_CONF': str(self._folder / 'slurm.conf')}
    self._job = None

  def __enter__(self):
    self._daemons('start')
    return self

  def __exit__(self, *_):
    self._daemons('stop')

  def _daemons(self, action):
    script = ROOT / 'benchmarks' / 'slurm_daemons.sh'
    words = ['bash', script, action, self._folder, str(self._processes)]
    subprocess.run(words, check=True, stdout=sys.stderr)

  def launch(self, home, words, environment):
    """Submits a run; its log lies in `home`."""
    submitted = subprocess.run(
      _command('slurm', f'--tasks_per_node={self._processes}', *words),
      cwd=home,
      env=environment,
      check=True,
      stdout=subprocess.PIPE,
      text=True,
      encoding='utf-8',
    ).stdout
    self._job = re.findall(r'\d+', submitted)[-1]
    self._log = home / f'{NAME}-{self._job}.log'

  def ended(self):
    """-> whether no start of the run is waited for any more."""
    jobs = subprocess.run(
      ['squeue', '--noheader', '--format=%i', f'--jobs={self._job}'],
      env=os.environ | self.environment,
      capture_output=True,
      text=True,
      encoding='utf-8',
      check=False,
    )
    # A job that is over is forgotten after minutes. Any other error says
    # nothing about the job.
    known = jobs.returncode == 0 or 'Invalid job id' in jobs.stderr
    return known and not jobs.stdout.strip()

  def said(self):
    """-> all that the run has printed."""
    return read_text(self._log)

  def end(self):
    """Ends the run for good."""
    words = ['scancel', str(self._job)]
    subprocess.run(words, env=os.environ | self.environment, check=False)
    while not self.ended():
      time.sleep(1)


class Local:
  """Launches a run with the target `local`, without a scheduler."""

  environment = {}

  def __init__(self, folder, processes):
    self._processes, self._process = processes, None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._process is not None:
      self.end()

  def launch(self, home, words, environment):
    """Starts a run; its log lies in `home`."""
    self._path = home / 'log'
    with open(self._path, 'wb') as log:
      self._process = subprocess.Popen(
        _command('local', f'--processes={self._processes}', *words),
        cwd=home,
        env=environment,
        stdout=log,
        stderr=log,
      )

  def ended(self):
    """-> whether the launcher has ended."""
    return self._process.poll() is not None

  def said(self):
    """-> all that the run has printed."""
    return read_text(self._path)

  def end(self):
    """Ends the run for good."""
    if not self.ended():
      self._process.terminate()
      with contextlib.suppress(subprocess.TimeoutExpired):
        self._process.wait(60)
      self._process.kill()


LAUNCHERS = {'slurm': Slurm, 'local': Local}


def read_text(path):
  """-> the text of a file, '' if there is none."""
  if not path.exists():
    return ''
  return path.read_text(encoding='utf-8', errors='replace')
