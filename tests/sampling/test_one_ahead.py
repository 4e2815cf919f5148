"""The devices have the next batch before the host waits for the one before."""

import jax
import numpy as np
import pytest

from cdm.ops import keys
from cdm.sampling import cascade, generate, sample_storage, upscaler
from cdm.sampling.one_ahead import one_ahead

# Three batches.
IN_ORDER = ['begin 0', 'begin 1', 'wait 0', 'begin 2', 'wait 1', 'wait 2']


@pytest.mark.parametrize('count', [0, 1, 2, 5])
def test_every_item_comes_in_its_order(count):
  assert list(one_ahead(range(count))) == list(range(count))


@pytest.fixture
def log(monkeypatch):
  """-> what was begun and waited for; both functions act on the list."""
  found = []

  def waited(function):
    def run(x):
      found.append(f'wait {sum(line.startswith("wait") for line in found)}')
      return function(x)

    return run

  monkeypatch.setattr(jax, 'block_until_ready', waited(jax.block_until_ready))
  monkeypatch.setattr(
    upscaler.device_mesh, 'fetch', waited(upscaler.device_mesh.fetch)
  )
  return found


def begun(log, draw):
  """-> the function, which says in the log that a batch has begun."""

  def begin(*given):
    log.append(f'begin {sum(line.startswith("begin") for line in log)}')
    return draw(*given)

  return begin


def noise(params, *, keys, **_):
  return jax.vmap(lambda key: jax.random.uniform(key, (4, 4, 3)))(keys)


@pytest.mark.parametrize('storage', ['png', 'array_records'])
def test_samples_begin_before_the_batch_before_is_written(
  storage, log, monkeypatch, tmp_path
):
  if storage == 'array_records':
    pytest.importorskip('array_record')
  sampler = cascade.sampler
  monkeypatch.setattr(
    cascade, 'sampler', lambda *given: begun(log, sampler(*given))
  )
  generate.draw_to_folder(
    tmp_path,
    [cascade.Stage('noise', 4, noise, np.float32(1))],
    manifest={'seed': 0, 'labels': None},
    num=5,
    batch_size=2,
    storage=sample_storage.Storage(storage, 'last'),
  )
  assert log == IN_ORDER


def test_super_resolution_begins_before_the_batch_before_is_fetched(log):
  def upscale_batch(lowres, keys, label):
    del keys, label
    return jax.numpy.asarray(lowres.repeat(2, 1).repeat(2, 2))

  made = upscaler.Upscaler(
    begun(log, upscale_batch), 8, lowres=None, record=None, batch_size=4
  )
  lowres = np.arange(10 * 48, dtype=np.uint16).astype(np.uint8)
  lowres = lowres.reshape(10, 4, 4, 3)
  counts = []
  out = made(
    lowres,
    keys=keys.seed_pairs(0, np.arange(10)),
    on_batch=counts.append,
  )
  np.testing.assert_array_equal(out[:, ::2, 1::2], lowres)
  assert counts == [4, 4, 2] and log == IN_ORDER
