"""The whole house in small: the smoke experiments, through the front door.

Each model is trained once in a test process, however many files ask for it.
"""

import atexit
import functools
import os
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
import orbax.checkpoint as ocp

from cdm.cli import main
from cdm.config import placement
from cdm.reporting import metric_writer

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'

# One level of few features: compiling is what costs. The rate is high, so that
# four steps leave no weight where it was.
SMALL = {
  'model.features': 8,
  'model.multipliers': '(1,)',
  'model.attention_resolutions': '()',  # but in the middle
  'model.norm_groups': 4,
  'optimizer.learning_rate': 0.02,
  'optimizer.warmup_steps': 0,
  'train.num_steps': 4,
  'train.log_every_steps': 3,
  'train.save_every_steps': 2,
  'train.sample_every_steps': 4,
  'eval.every_steps': 0,  # where a test asks for no more
}


def cdm(*words):
  """Runs `cdm WORDS` in this process. Returns the exit code."""
  with mock.patch.dict(os.environ, programs()):
    return main.main([str(word) for word in words])


def train(config, workdir, *, devices=1, **overrides):
  """Runs `cdm train` of `configs/CONFIG.py`, made `SMALL`.

  Args:
    config: name of the config.
    workdir: of the run.
    devices: how many of the eight.
    **overrides: config values, with `__` for the dot.
  """
  overrides = {k.replace('__', '.'): v for k, v in overrides.items()}
  words = [f'--config.{k}={v}' for k, v in (SMALL | overrides).items()]
  path = CONFIGS / f'{config}.py'
  with on(devices):
    code = cdm('train', f'--config={path}', f'--workdir={workdir}', *words)
  assert code == 0


def on(devices):
  """Context: a mesh is made of the first `devices` devices only."""
  chosen = jax.devices()[:devices]
  make = placement.mesh
  return mock.patch.object(
    placement,
    'mesh',
    lambda section, devices=None, **more: make(section, chosen, **more),
  )


@functools.cache
def trained():
  """-> pathlib.Path with `base` and `sr`, both stages of smoke_cascade.

  They are evaluated at their last step.
  """
  workdir = temporary() / 'cascade'
  train('smoke', workdir / 'base', eval__every_steps=4)
  train('smoke_sr', workdir / 'sr', eval__every_steps=4)
  return workdir


@functools.cache
def temporary():
  """-> pathlib.Path of a folder that goes when this process ends."""
  folder = tempfile.TemporaryDirectory(prefix='cdm-test-')
  atexit.register(folder.cleanup)
  return pathlib.Path(folder.name)


def programs():
  """-> the environment variables of a process that shares what it compiles.

  It shares with all processes of this run of the tests, see `conftest`.
  """
  return {
    'JAX_COMPILATION_CACHE_DIR': os.environ['CDM_TESTS_PROGRAMS'],
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }


def snapshot(folder, pattern='**/*'):
  """-> {relative path: bytes} of the files of a folder."""
  folder = pathlib.Path(folder)
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.glob(pattern))
    if path.is_file()
  }


def state(workdir, step):
  """-> {name: array}: all that a checkpoint holds of the training state."""
  path = pathlib.Path(workdir).absolute() / 'checkpoints' / str(step) / 'state'
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    stored = reader.metadata(path).item_metadata.tree
    # On one device, whatever it was saved from.
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    args = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=place), stored)
    restored = reader.restore(path, ocp.args.PyTreeRestore(restore_args=args))
    leaves, _ = jax.tree_util.tree_flatten_with_path(restored)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): array(leaf)
    for path, leaf in leaves
  }


def array(leaf):
  """-> np.ndarray, of a key its data."""
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf)


def record(workdir):
  """-> the scalars of a run, but for those that tell the time."""
  return [
    {k: v for k, v in row.items() if k not in metric_writer.CIRCUMSTANCES}
    for row in metric_writer.read_scalars(
      pathlib.Path(workdir) / metric_writer.SCALARS
    )
  ]
