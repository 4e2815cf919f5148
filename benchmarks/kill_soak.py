"""Kills a small run with SIGKILL at random moments; it must end the same.

  python benchmarks/kill_soak.py [--rounds=50] [--seed=0] [--folder=DIR]

Every round starts `cdm train` of the smoke config as a process of its own,
kills it one to three times and then lets it end. Moments are drawn from the
seed: anywhere in start-up, while restoring, between steps, while a checkpoint
is being written, while samples are drawn or held-out images are evaluated.
Compared with a run that was never killed, bit for bit: every array of the last
checkpoint, the position in the data, all log lines but their timings, every
evaluation, the best checkpoint, every grid of samples.

Prints a line per round and, last, how many were the same; exits with 1 unless
all were. The compiled programs are cached in the folder, and TensorFlow is
hidden: importing it is half of a start, and TensorBoard events are no record.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cdm.reporting.metric_writer import CIRCUMSTANCES  # noqa: E402

STEPS, SAVE_EVERY, SAMPLE_EVERY, EVALUATE_EVERY = 24, 3, 4, 4
OVERRIDES = {
  'model.features': 8,
  'model.multipliers': '(1,)',
  'model.attention_resolutions': '()',
  'model.norm_groups': 4,
  'pipeline.flip': True,
  'train.num_steps': STEPS,
  'train.log_every_steps': 2,
  'train.save_every_steps': SAVE_EVERY,
  'train.sample_every_steps': SAMPLE_EVERY,
  # Each of its steps is saved too, because it may be the best.
  'eval.every_steps': EVALUATE_EVERY,
}
MOMENTS = ('start-up', 'restoring', 'steps', 'saving', 'drawing')
PARTIAL = '*.orbax-checkpoint-tmp*'
POLL_SECONDS = 0.002
LIMIT_SECONDS = 600


class Run:
  """`cdm train` in a work directory, as a process."""

  def __init__(self, workdir, cache):
    self.workdir = workdir
    hidden = cache.parent / 'hidden'
    hidden.mkdir(exist_ok=True)
    (hidden / 'tensorflow.py').write_text(
      "raise ImportError('hidden')\n", encoding='utf-8'
    )
    given = filter(None, [os.environ.get('PYTHONPATH')])
    words = [f'--config.{key}={value}' for key, value in OVERRIDES.items()]
    self._log = open(f'{workdir}.log', 'ab')
    self._from = os.path.getsize(f'{workdir}.log')
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'cdm', 'train', f'--workdir={workdir}',
       f'--config={ROOT / "configs" / "smoke.py"}', *words],
      cwd=ROOT,
      stdout=self._log,
      stderr=self._log,
      env={
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': str(cache),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'PYTHONPATH': os.pathsep.join([str(hidden), *given]),
      },
    )  # fmt: skip

  def said(self, text):
    """Whether this start has printed a text."""
    with open(f'{self.workdir}.log', 'rb') as file:
      file.seek(self._from)
      return text.encode() in file.read()

  def wait(self, condition=lambda: False, seconds=LIMIT_SECONDS):
    """Waits for a condition, the end of the process, or so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and self.process.poll() is None:
      if condition():
        return True
      time.sleep(POLL_SECONDS)
    return False

  def saving(self):
    """Whether a checkpoint is half-written."""
    return any((self.workdir / 'checkpoints').glob(PARTIAL))

  def logged(self, step):
    """Whether the line of a step is on record."""
    path = self.workdir / 'scalars.jsonl'
    return path.exists() and f'{{"step": {step},' in path.read_text(
      encoding='utf-8'
    )

  def last_step(self):
    """-> the newest complete checkpoint, or 0."""
    names = [p.name for p in (self.workdir / 'checkpoints').glob('*')]
    return max((int(name) for name in names if name.isdigit()), default=0)

  def where(self):
    """-> what the process is doing, as far as can be seen from outside."""
    if not self.said('smoke:'):
      return 'start-up'
    if not self.said('compiling'):
      return 'restoring' if self.last_step() else 'initialising'
    if not self.said('first step after'):
      return 'first step'
    return 'saving' if self.saving() else 'steps or drawing'

  def end(self):
    """Waits for the run to be complete."""
    code = self.process.wait(LIMIT_SECONDS)
    self._log.close()
    if code:
      sys.exit(f'cdm train ended with {code}; see {self.workdir}.log')

  def kill(self):
    """-> where it was, or None if it had ended by itself."""
    place = f'{self.where()} (from {self.last_step()})'
    ended = self.process.poll() is not None
    self.process.kill()
    self.process.wait()
    self._log.close()
    return None if ended else place


def kill_somewhere(run, moment, rng, startup_seconds):
  """Kills a run at a moment of a kind; -> where, or None if too late."""
  if moment == 'start-up':
    run.wait(seconds=rng.uniform(0, startup_seconds))
  elif moment == 'restoring':
    run.wait(lambda: run.said('smoke:'))
    run.wait(seconds=rng.uniform(0, 0.5))
  else:
    run.wait(lambda: run.said('first step after'))
    ahead = range(run.last_step() + 1, STEPS + 1)
    if moment == 'steps':
      run.wait(seconds=rng.uniform(0, 1.5))
    elif moment == 'saving':
      past = rng.choice(ahead[:-SAVE_EVERY] or ahead[:1]) - 1
      run.wait(lambda: run.last_step() >= past and run.saving())
      run.wait(seconds=rng.uniform(0, 0.1))
    else:
      drawn = [step for step in ahead if step % SAMPLE_EVERY == 0]
      step = rng.choice(drawn or [STEPS])
      run.wait(lambda: run.logged(step))
      run.wait(seconds=rng.uniform(0, 0.05))
  return run.kill()


def arrays(workdir, step=STEPS):
  """-> {name: array} of the training state in the checkpoint of a step."""
  import jax
  import numpy as np
  import orbax.checkpoint as ocp

  path = workdir / 'checkpoints' / str(step) / 'state'
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    stored = reader.metadata(path).item_metadata.tree
    asked = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored
    )
    tree = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=asked))
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  found = {}
  for name, leaf in leaves:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    found[jax.tree_util.keystr(name)] = np.asarray(leaf)
  return found


def result(workdir, step=STEPS):
  """-> {what: comparable value} of a run that is complete at a step."""
  last = workdir / 'checkpoints' / str(step)
  rows = (workdir / 'scalars.jsonl').read_text(encoding='utf-8').splitlines()
  window = json.loads(
    (last / 'window' / 'metadata').read_text(encoding='utf-8')
  )['sums']
  found = {
    'data position': (last / 'data' / 'metadata').read_text(encoding='utf-8'),
    'unfinished line': window['sums'],
    'best': (workdir / 'checkpoints' / 'best').read_text(encoding='utf-8'),
    'log lines': [
      {k: v for k, v in json.loads(row).items() if k not in CIRCUMSTANCES}
      for row in rows
    ],
  }
  for path in sorted((workdir / 'grids').glob('*.png')):
    found[path.name] = path.read_bytes()
  for name, value in arrays(workdir, step).items():
    found[f'array {name}'] = (value.dtype, value.shape, value.tobytes())
  return found


def differences(mine, other):
  """-> names of what is not the same in two results."""
  names = mine.keys() | other.keys()
  return sorted(n for n in names if mine.get(n) != other.get(n))


def soak(folder, rounds, seed, kills=(1, 3), warm=True):
  """Runs all rounds; -> how many ended the same.

  Args:
    folder: for the runs; what differs stays there.
    rounds: how many.
    seed: of the moments.
    kills: least and most, of a round.
    warm: whether a first run compiles, so that the time of a start is known.
  """
  cache = folder / 'xla'
  if warm:
    Run(folder / 'warm', cache).end()
  began = time.monotonic()
  whole = Run(folder / 'whole', cache)
  whole.wait(lambda: whole.said('first step after'))
  startup_seconds = time.monotonic() - began
  whole.end()
  expected = result(folder / 'whole')
  if warm:
    assert not differences(expected, result(folder / 'warm'))
  print(
    f'never killed: {len(expected)} things to compare, {startup_seconds:.1f} s '
    'to the first step',
    flush=True,
  )
  same = 0
  for number in range(rounds):
    rng = random.Random(f'{seed}/{number}')
    workdir, places = folder / f'round{number}', []
    for k in range(rng.randint(*kills)):
      # Every kind has its turn; a run that has nothing yet cannot restore.
      moment = MOMENTS[(number + 2 * k) % len(MOMENTS)]
      run = Run(workdir, cache)
      place = kill_somewhere(run, moment, rng, startup_seconds)
      places.append(place or 'not: it was complete')
    Run(workdir, cache).end()
    changed = differences(result(workdir), expected)
    same += not changed
    verdict = f'DIFFERS: {changed[:5]}' if changed else 'same'
    print(f'round {number}: {verdict}; killed: {"; ".join(places)}', flush=True)
    if not changed:
      shutil.rmtree(workdir)
      os.remove(f'{workdir}.log')
  print(f'{same} of {rounds}', flush=True)
  return same


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--rounds', type=int, default=50)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--folder', type=pathlib.Path)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = args.folder or pathlib.Path(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    if soak(folder, args.rounds, args.seed) != args.rounds:
      sys.exit(1)


if __name__ == '__main__':
  main()
