"""Methods that are fitted without gradients, by sums over the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny_run

from cdm.distributed import device_mesh, partitioning
from cdm.training import fit_step, optimizer, run_config, state

SIZE, BATCH = 4, 16


def accumulate(params, batch):
  """The sum of all images, and how many they are."""
  image = batch['image'].astype(jnp.float32)
  total = params['total'] + image.sum(axis=0)
  count = params['count'] + image.shape[0]
  return {'total': total, 'count': count}, {'loss': image.mean()}


def init(key):
  del key
  return {'total': jnp.zeros((SIZE, SIZE, 3)), 'count': jnp.zeros(())}


def fitted(num_devices):
  mesh = device_mesh.make_mesh(devices=jax.devices()[:num_devices])
  shapes = state.shapes(init, optimizer.NOTHING, key=jax.random.key(0))
  abstract = partitioning.with_shardings(shapes, mesh, ())
  step = fit_step.make_fit_step(
    accumulate, mesh=mesh, shardings=state.shardings_of(abstract)
  )
  now = state.make_state(
    init, optimizer.NOTHING, key=jax.random.key(0), abstract=abstract
  )
  rng, images = np.random.default_rng(0), []
  for _ in range(3):
    image = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    images.append(image)
    batch = {'image': image, 'label': np.zeros(BATCH, np.int32)}
    now, scalars = step(now, device_mesh.shard_batch(batch, mesh))
  return now, scalars, np.concatenate(images)


@pytest.mark.parametrize('num_devices', [1, 8])
def test_sums_are_those_of_all_batches_on_any_mesh(num_devices):
  now, scalars, images = fitted(num_devices)
  total = images.astype(np.int64).sum(axis=0)
  np.testing.assert_array_equal(now.params['total'], total)
  assert float(now.params['count']) == len(images) and int(now.step) == 3
  tiny_run.assert_same(now.ema_params, now.params)
  assert now.opt_state == ()
  np.testing.assert_allclose(scalars['loss'], images[-BATCH:].mean(), rtol=1e-5)
  assert float(scalars['param_norm']) == float(optax.tree.norm(now.params))


@pytest.mark.parametrize(
  'given',
  [{'accumulation': 2}, {'grad_norm_spike_factor': 3.0}, {'init_from': 'runs'}],
)
def test_what_only_gradients_have_is_refused(given):
  names = 'batch_size', 'num_steps', 'log_every_steps', 'save_every_steps'
  needed = dict.fromkeys(names, 4)
  schedule = run_config.Run(**needed, **given)
  (key,) = given
  with pytest.raises(ValueError, match=rf'config\.train\.{key} is .* without'):
    fit_step.check(schedule)
  fit_step.check(run_config.Run(**needed))
