"""A training run small enough for tests: 4x4 images, two dense layers."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np

from cdm.checkpointing import local_copies, writer
from cdm.distributed import device_mesh, partitioning
from cdm.reporting import metric_writer
from cdm.training import (
  averaged_state,
  loop,
  optimizer,
  rollback,
  run_config,
  start,
  watchdog,
)
from cdm.training import state as train_state
from cdm.training import step as train_step

SIZE = (4, 4, 3)
BATCH = 16
CONFIG = '{"seed": 0}\n'
RULES = (('kernel$', (None, 'fsdp')),)


def init(key, features=8):
  down, up = jax.random.split(key)
  size = int(np.prod(SIZE))
  return {
    'down': {
      'bias': jnp.zeros(features),
      'kernel': 0.1 * jax.random.normal(down, (size, features)),
    },
    'up': {
      'bias': jnp.zeros(size),
      'kernel': 0.1 * jax.random.normal(up, (features, size)),
    },
  }


def network(params, x):
  h = x.reshape(x.shape[0], -1) @ params['down']['kernel']
  h = jnp.tanh(h + params['down']['bias'][None])
  h = h @ params['up']['kernel'] + params['up']['bias'][None]
  return h.reshape(x.shape)


def loss(params, batch, *, key, train):
  """Denoises; the noise and its level are drawn for the whole batch."""
  level_key, eps_key = jax.random.split(key)
  x_0 = batch['image'].astype(jnp.float32) / 127.5 - 1
  logsnr = jax.random.uniform(level_key, x_0.shape[:1], minval=-8, maxval=8)
  eps = jax.random.normal(eps_key, x_0.shape)
  x_t = x_0 + jnp.exp(-logsnr / 2)[:, None, None, None] * eps
  losses = ((network(params, x_t) - x_0) ** 2).mean((1, 2, 3))
  return losses, {'logsnr': logsnr, 'noise': eps.mean((1, 2, 3))}


def noiseless(params, batch, *, key, train):
  x_0 = batch['image'].astype(jnp.float32) / 127.5 - 1
  return ((network(params, x_0) - x_0) ** 2).mean((1, 2, 3)), {}


def batch_at(index, size=BATCH):
  rng = np.random.default_rng((7, index))
  return {
    'image': rng.integers(0, 256, (size, *SIZE), dtype=np.uint8),
    'label': rng.integers(0, 3, size, dtype=np.int32),
  }


class Batches:
  """Batch k is a function of k; remembers which ones it gave."""

  def __init__(self, *, size=BATCH, end=None, before=None):
    self._state = {'next': 0}
    self._size = size
    self._end = end
    self._before = before
    self.given = []

  def __iter__(self):
    return self

  def __next__(self):
    index = self._state['next']
    if index == self._end:
      raise StopIteration
    if self._before is not None:
      self._before(index)
    self._state['next'] += 1
    self.given.append(index)
    return batch_at(index, self._size)

  def get_state(self):
    return self._state  # its own dict, that it goes on changing

  def set_state(self, state):
    self._state = copy.deepcopy(state)


@functools.lru_cache
def mesh(data=8, fsdp=1, tensor=1):
  devices = jax.devices()[: data * fsdp * tensor]
  return device_mesh.make_mesh(
    data=data, fsdp=fsdp, tensor=tensor, devices=devices
  )


@functools.lru_cache
def adam(**fields):
  fields = {'learning_rate': 1e-2, 'warmup_steps': 3, 'clip_norm': 1.0} | fields
  return optimizer.make_optimizer(optimizer.AdamOptions(**fields))


def abstract_state(init, tx, *, key, mesh, rules=(), averages=()):
  """-> the state without an array: what a checkpoint is restored to."""
  shapes = train_state.shapes(init, tx, key=key)
  placed = partitioning.with_shardings(shapes, mesh, rules)
  return averaged_state.described(placed, averages)


def init_state(init, tx, *, key, mesh, rules=(), averages=()):
  """-> the state of a new run, in its place on the mesh."""
  abstract = abstract_state(
    init, tx, key=key, mesh=mesh, rules=rules, averages=averages
  )
  return averaged_state.make(
    lambda own: train_state.make_state(init, tx, key=key, abstract=own),
    abstract,
  )


@functools.lru_cache
def step(loss=loss, shape=(8, 1, 1), accumulation=1):
  """The jitted step; kept, because compiling it is what tests cost."""
  return train_step.make_step(
    loss, adam(), mesh=mesh(*shape), ema_decay=0.99, accumulation=accumulation
  )


class Run:
  """`cdm train` in small: start or continue in a work directory, train on."""

  def __init__(
    self,
    workdir,
    *,
    shape=(8, 1, 1),
    batches=None,
    keep=3,
    tx=None,
    retry_seconds=0.0,
    averages=(),
    rules=(),
  ):
    self.averages, self.rules = averages, rules
    self.tx = adam() if tx is None else tx
    self.workdir = workdir
    self.mesh = mesh(*shape)
    self.shape = shape
    self.batches = Batches() if batches is None else batches
    self.keep = keep
    self.retry_seconds = retry_seconds

  def train(
    self,
    num_steps,
    *,
    step_fn=None,
    log_every=3,
    save_every=2,
    sample_every=0,
    rollbacks=0,
    spike_factor=0.0,
    watch=None,
    hooks=None,
    copies=None,
    comparison=None,
    snapshots=None,
    **more,
  ):
    """-> loop.Outcome; hooks may be made by a function of the collaborators.

    Local copies are made at every log line, in the folder `copies`.
    """
    schedule = run_config.Run(
      batch_size=BATCH,
      num_steps=num_steps,
      log_every_steps=log_every,
      save_every_steps=save_every,
      sample_every_steps=sample_every,
      grad_norm_spike_factor=spike_factor,
      local_copy_every_minutes=1e-9 if copies else 0.0,
      compare_every_steps=4,
    )
    saver = writer.Checkpointer(
      self.workdir,
      config=CONFIG,
      keep=self.keep,
      save_every_steps=save_every,
      retry_seconds=self.retry_seconds,
    )
    reporter = metric_writer.Reporter(
      self.workdir, tensorboard=False, quiet=True
    )
    collaborators = loop.Collaborators(
      iterator=self.batches,
      checkpointer=saver,
      reporter=reporter,
      rollbacks=rollback.Rollbacks(self.workdir, limit=rollbacks),
      watch=watchdog.Watchdog() if watch is None else watch,
      comparison=comparison,
      local_copies=local_copies.LocalCopies(copies, self.workdir)
      if copies
      else None,
      snapshots=snapshots,
    )
    with reporter, saver:
      state, metrics = start.start(
        init,
        self.tx,
        key=jax.random.key(0),
        abstract=abstract_state(
          init,
          self.tx,
          key=jax.random.key(0),
          mesh=self.mesh,
          rules=self.rules,
          averages=self.averages,
        ),
        schedule=schedule,
        collaborators=collaborators,
      )
      return loop.train(
        state,
        metrics,
        step=step_fn or step(shape=self.shape),
        mesh=self.mesh,
        schedule=schedule,
        collaborators=collaborators,
        hooks=hooks(collaborators) if callable(hooks) else hooks,
        **more,
      )

  def record(self):
    """-> scalars.jsonl without what depends on the clock."""
    rows = metric_writer.read_scalars(self.workdir / metric_writer.SCALARS)
    clock = metric_writer.CIRCUMSTANCES
    return [{k: v for k, v in row.items() if k not in clock} for row in rows]


def as_numpy(state):
  """-> [(name, array)] of every leaf, the key as its data."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return [(jax.tree_util.keystr(p), _array(leaf)) for p, leaf in leaves]


def _array(leaf):
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf)


def assert_same(mine, other, *, rtol=0.0, atol=0.0):
  """Every leaf equal, bit for bit unless a tolerance is given."""
  mine, other = as_numpy(mine), as_numpy(other)
  assert [n for n, _ in mine] == [n for n, _ in other]
  for (name, a), (_, b) in zip(mine, other, strict=True):
    assert a.dtype == b.dtype, name
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=name)
