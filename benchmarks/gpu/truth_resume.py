"""Kills a small run and resumes it: does it end with the same bits on a GPU?

Three starts of `cdm train` of configs/smoke.py: one that is never killed, one
that is killed with SIGKILL after its first checkpoint, and one that resumes it.
With --xla_gpu_deterministic_ops=true every array of the last checkpoint must be
the same; without it, the difference is a figure and no fault.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = 'configs/smoke.py'
STEPS, SAVE_EVERY = 24, 6
DETERMINISTIC = '--xla_gpu_deterministic_ops=true'
WORDS = (
  f'--config.train.num_steps={STEPS}',
  f'--config.train.save_every_steps={SAVE_EVERY}',
  '--config.train.sample_every_steps=0',
  '--config.eval.every_steps=0',
  '--config.eval.best=',
)
POLL_SECONDS = 0.01
FLAGS = 'XLA_FLAGS'


class Resumed:
  """The two runs of one setting, which are compared later.

  Attributes:
    killed_at: step of the newest checkpoint when the run was killed.
  """

  def __init__(self, folder, *, deterministic):
    """Trains twice, once with a kill.

    Args:
      folder: for the work directories.
      deterministic: whether the compiler is asked for deterministic programs.
    """
    env = dict(os.environ)
    if deterministic and not _on_cpu():
      env[FLAGS] = f'{env.get(FLAGS, "")} {DETERMINISTIC}'.strip()
    self._whole, self._killed = folder / 'whole', folder / 'killed'
    _finish(self._whole, env)
    self.killed_at = _kill(self._killed, env)
    _finish(self._killed, env)

  def difference(self):
    """Returns (largest difference of any array, arrays that differ).

    JAX reads the checkpoints, so no process may train at the same time.
    """
    largest, names = 0.0, []
    whole, killed = read_state(self._whole), read_state(self._killed)
    if whole.keys() != killed.keys():
      raise SystemExit('The two runs have saved other arrays; see the log.')
    for name, value in whole.items():
      if value.tobytes() != killed[name].tobytes():
        apart = np.abs(value.astype(np.float64) - killed[name])
        largest = max(largest, float(np.nanmax(apart, initial=0.0)))
        names.append(name)
    return largest, names


def read_state(workdir):
  """Returns {name: array} of the newest checkpoint, by Orbax alone."""
  import jax
  import orbax.checkpoint as ocp

  from cdm.checkpointing import reader

  path = reader.folder(workdir) / str(reader.resolve(workdir)) / 'state'
  with ocp.PyTreeCheckpointer() as checkpointer:
    stored = checkpointer.metadata(path).item_metadata.tree
    on_host = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored
    )
    state = checkpointer.restore(
      path, args=ocp.args.PyTreeRestore(restore_args=on_host)
    )
  return {
    jax.tree_util.keystr(key, simple=True, separator='/'): np.asarray(value)
    for key, value in jax.tree_util.tree_flatten_with_path(state)[0]
  }


def _start(workdir, env):
  words = [sys.executable, '-m', 'cdm', 'train', f'--config={CONFIG}']
  log = open(f'{workdir}.log', 'ab')
  with log:
    return subprocess.Popen(
      [*words, f'--workdir={workdir}', *WORDS],
      cwd=ROOT,
      env=env,
      stdout=log,
      stderr=log,
    )


def _finish(workdir, env):
  """Trains to the end."""
  workdir.parent.mkdir(parents=True, exist_ok=True)
  code = _start(workdir, env).wait()
  if code:
    log = pathlib.Path(f'{workdir}.log').read_text(encoding='utf-8')
    raise SystemExit(f'cdm train ended with {code}:\n{log[-2000:]}')


def _kill(workdir, env):
  """Kills a run once it has a checkpoint; -> the step of the newest one.

  A run that is too fast, and ends before the kill, is trained anew.
  """
  for _ in range(5):
    process = _start(workdir, env)
    while process.poll() is None:
      if _steps(workdir):
        process.send_signal(signal.SIGKILL)
        break
      time.sleep(POLL_SECONDS)
    process.wait()
    found = _steps(workdir)
    if found and found[-1] < STEPS:
      return found[-1]
    shutil.rmtree(workdir, ignore_errors=True)
  raise SystemExit('No run could be killed between its first and last step.')


def _steps(workdir):
  folder = workdir / 'checkpoints'
  return sorted(int(p.name) for p in folder.glob('*') if p.name.isdecimal())


def _on_cpu():
  """Whether JAX is told to use the CPU, whose XLA does not know the flag."""
  return os.environ.get('JAX_PLATFORMS', '') == 'cpu'
