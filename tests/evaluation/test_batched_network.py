"""A network gives each image what it gives it alone, whatever is beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.evaluation.batched_network import BatchedNetwork

WEIGHTS = np.random.default_rng(0).integers(-9, 9, (12, 5)).astype(np.float32)


def images(count, seed=1):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, 2, 2, 3)).astype(np.uint8)


def flat(x):
  return x.reshape(x.shape[0], -1).astype(np.float32)  # [B, 12]


def linear(params, x):
  """Whole numbers below 2^24, so that float32 is exact in any order."""
  return flat(x) @ params


@pytest.mark.parametrize('count', [1, 7, 8, 9, 21])
@pytest.mark.parametrize('devices', [1, 8])
def test_any_number_of_images_goes_through_any_devices(count, devices):
  shapes = []

  def counted(params, x):
    shapes.append(x.shape)
    return linear(params, x)

  network = BatchedNetwork(
    counted, WEIGHTS, batch_size=7, devices=jax.devices()[:devices]
  )
  assert network.batch_size == (7 if devices == 1 else 8)
  x = images(count)
  found = network(x)
  assert isinstance(found, np.ndarray) and found.dtype == np.float32
  np.testing.assert_array_equal(found, flat(x) @ WEIGHTS)
  assert shapes == [(network.batch_size, 2, 2, 3)]  # one program


def test_by_default_a_batch_is_split_over_all_devices():
  def devices_used(params, x):
    return linear(params, x)

  network = BatchedNetwork(devices_used, WEIGHTS, batch_size=1)
  assert network.batch_size == len(jax.devices()) == 8
  ((count, found),) = network.start(images(3))
  assert count == 3 and len(found.sharding.device_set) == 8
  assert found.addressable_shards[0].data.shape == (1, 5)


def test_several_inputs_give_a_tree_of_outputs():
  def both(params, x, y):
    return {'sum': linear(params, x) + linear(params, y), 'rest': (x, y)}

  network = BatchedNetwork(both, WEIGHTS, batch_size=8)
  x, y = images(11, seed=2), images(11, seed=3)
  found = network(x, y)
  np.testing.assert_array_equal(found['sum'], (flat(x) + flat(y)) @ WEIGHTS)
  np.testing.assert_array_equal(found['rest'], (x, y))
  with pytest.raises(ValueError, match=r'hold \[11, 10\] images; give the'):
    network(x, y[:10])


def test_no_images_give_no_rows():
  network = BatchedNetwork(
    lambda params, x: (linear(params, x), jnp.zeros(x.shape[0], jnp.int32)),
    WEIGHTS,
    batch_size=8,
  )
  rows, zeros = network(images(0))
  assert (rows.shape, rows.dtype) == ((0, 5), np.float32)
  assert (zeros.shape, zeros.dtype) == ((0,), np.int32)


def test_the_host_reads_the_next_images_meanwhile():
  network = BatchedNetwork(linear, WEIGHTS, batch_size=8)
  x = images(20)
  started = [network.start(x[:9]), network.start(x[9:])]
  found = np.concatenate([network.finish(one) for one in started])
  np.testing.assert_array_equal(found, flat(x) @ WEIGHTS)
