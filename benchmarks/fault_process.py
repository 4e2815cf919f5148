"""Lets a fault happen inside a process of cdm, as `fault_rounds` has planned.

`write_start_folder` makes a folder for PYTHONPATH, whose `sitecustomize` calls
`install` in every process of Python. A process of `cdm` whose environment names
a plan then writes its number for the one who kills it, reads its data slowly
enough for a fault to find it at work, and fails as planned once the file
`armed` is there: one process, in one of its starts.

Reading fails where Python opens a file, so that everything above it, in cdm and
in other packages, meets the error as it would meet that of a real disk.
"""

import errno
import json
import os
import pathlib
import sys
import time

PLAN = 'FAULT_PLAN'  # the variable that holds the path of the plan
ARMED, TAKEN = 'armed', 'taken'
# Seconds that the opening of a picture takes: a step then takes a twentieth.
PACE = 0.025
FEW_READS = 3  # that fail until the storage is well again
SLOW_SECONDS = 60.0
JUMP_SECONDS = 3600.0
# What happens in the process itself, as opposed to what is done to it.
INSIDE = (
  *('read', 'read lasting', 'read never', 'slow read', 'slow save'),
  *('clock ahead', 'clock back'),
)


def write_start_folder(folder):
  """Makes the folder that PYTHONPATH has to name. TensorFlow is hidden in it.

  Args:
    folder: pathlib.Path.
  """
  folder.mkdir(parents=True, exist_ok=True)
  texts = {
    'tensorflow': "raise ImportError('hidden')\n",
    'sitecustomize': (
      'from benchmarks import fault_process\n\nfault_process.install()\n'
    ),
  }
  for name, text in texts.items():
    (folder / f'{name}.py').write_text(text, encoding='utf-8')


def install(environment=os.environ, words=None):
  """Prepares the fault of this process, if it is one of cdm with a plan.

  Args:
    environment: environment variables.
    words: the words that started this process; by default, sys.orig_argv.
  """
  words = sys.orig_argv if words is None else words
  if PLAN not in environment or 'cdm' not in words[1:4]:
    return
  path = pathlib.Path(environment[PLAN])
  plan = json.loads(path.read_text(encoding='utf-8'))
  index = process_index(environment, words)
  (path.parent / f'pid{index}').write_text(str(os.getpid()), encoding='utf-8')
  fault = Fault(plan, path.parent, index)
  sys.addaudithook(fault.hear)
  if plan['kind'].startswith('clock') and index == plan['process']:
    real = time.time
    time.time = lambda: real() + fault.jump()


def process_index(environment, words):
  """-> the index of this process in its run, however it was told; else 0."""
  for word in words:
    if word.startswith('--process_id='):
      return int(word.partition('=')[2])
  for name in ('CDM_PROCESS_ID', 'SLURM_PROCID'):
    if name in environment:
      return int(environment[name])
  return 0


class Fault:
  """What goes wrong in one process."""

  def __init__(self, plan, folder, index):
    """Prepares it.

    Args:
      plan: dict of `kind`, `process`, and of the paths `data` and `workdir`.
      folder: pathlib.Path, where the files `armed` and `taken` are.
      index: of this process.
    """
    self._kind, self._folder = plan['kind'], folder
    self._data, self._workdir = plan['data'], plan['workdir']
    self._here = index == plan['process']
    self._begun = False
    self._reads = 0
    self._looked = -1.0  # when `armed` was last looked for

  def hear(self, event, arguments):
    """Audit hook: slows and fails what Python opens."""
    if event != 'open' or not isinstance(arguments[0], str):
      return
    path, mode = arguments[0], arguments[1] or 'r'
    if path.startswith(self._data):
      time.sleep(PACE)
      if self._here:
        self._read(path)
    elif self._here and self._kind == 'slow save':
      writes = any(letter in mode for letter in 'wxa')
      if writes and path.startswith(f'{self._workdir}/checkpoints'):
        self._wait()

  def _read(self, path):
    if self._kind == 'read' and self.begins():
      self._reads += 1
      if self._reads <= FEW_READS:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)
    elif self._kind == 'read lasting' and self.begins():
      raise OSError(errno.EIO, os.strerror(errno.EIO), path)
    elif self._kind == 'read never' and self.begins():
      while True:
        time.sleep(SLOW_SECONDS)
    elif self._kind == 'slow read':
      self._wait()

  def _wait(self):
    if not self._begun and self.begins():
      time.sleep(SLOW_SECONDS)

  def jump(self):
    """-> the seconds by which the clock is wrong now."""
    if not self.begins():
      return 0.0
    return JUMP_SECONDS if self._kind == 'clock ahead' else -JUMP_SECONDS

  def begins(self):
    """-> whether the fault is there: armed, and begun by this start."""
    now = time.monotonic()
    if self._begun or now - self._looked < 0.1:
      return self._begun
    self._looked = now
    if os.path.exists(self._folder / ARMED):
      try:
        with open(self._folder / TAKEN, 'x', encoding='utf-8'):
          self._begun = True
      except FileExistsError:  # By a start before this one.
        pass
    return self._begun
