"""The batch that is drawn follows from memory, and changes no image."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_run
from support.linear_features import Projection

from cdm.config import loader
from cdm.distributed import device_mesh
from cdm.evaluation import image_source
from cdm.evaluation.image_selection import Selection
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import resize
from cdm.sampling import cascade, drawing_batch, generate, restore
from cdm.sampling.cascade import Stage

SIDE = 8  # float32 RGB: 768 bytes per array


def stages(mesh=None):
  """Noise of 4 px, and its magnification to 8 px."""

  def small(params, *, keys, label=None, **_):
    return jax.vmap(lambda key: jax.random.uniform(key, (4, 4, 3)))(keys)

  def large(params, *, keys, lowres, **_):
    return resize.resize(lowres, SIDE, method='nearest')

  params = jnp.float32(1.0)
  if mesh is not None:
    params = jax.device_put(params, device_mesh.replicated(mesh))
  low = Lowres(size=4)
  return [
    Stage('small', 4, small, params, mesh=mesh),
    Stage('large', SIDE, large, params, mesh=mesh, lowres=low),
  ]


@pytest.fixture
def memory(monkeypatch):
  """-> function that gives every device so many bytes."""

  def give(size):
    monkeypatch.setattr(drawing_batch, 'device_bytes', lambda mesh: size)

  return give


def test_the_largest_stage_decides_and_what_is_chosen_fits(memory):
  both = stages()
  needs = [drawing_batch.image_bytes(stage) for stage in both]
  assert needs[1] > needs[0] > 4 * 4 * 3 * 4
  for size in (100_000, 300_000, 10**7):
    memory(size)
    chosen = drawing_batch.batch_size(both)
    assert chosen & (chosen - 1) == 0  # a power of two
    assert chosen * needs[1] <= drawing_batch.SHARE * size
    half = 2 * chosen * needs[1] > drawing_batch.SHARE * (size - 100)
    assert half or chosen == drawing_batch.MOST
  memory(10**3)
  assert drawing_batch.batch_size(both) == 1  # it has to be tried
  memory(300_000)
  beside = drawing_batch.batch_size(both, resident_bytes=150_000)
  assert beside < drawing_batch.batch_size(both)


@pytest.mark.parametrize(
  ('platform', 'told', 'expected'),
  [
    ('gpu', {'bytes_limit': 5 * 2**34, 'bytes_in_use': 7}, 5 * 2**34),
    ('gpu', None, None),
    ('cpu', {'bytes_limit': 9}, None),
  ],
)
def test_memory_is_what_the_device_tells(platform, told, expected):
  device = types.SimpleNamespace(
    platform=platform, process_index=0, memory_stats=lambda: told
  )
  mesh = types.SimpleNamespace(devices=np.array([[device, device]]))
  assert drawing_batch.device_bytes(mesh) == expected


@pytest.mark.parametrize(
  ('num', 'most', 'expected'),
  [
    (50_000, None, 256 * 196),  # one batch: 256 on each would be more
    (200_000, None, 256 * 196),  # four batches, of 196 instead of 256 on each
    (3, None, 256),
    (None, None, 256 * 256),
    (None, 1000, 256 * 3),
    (None, 100, 256),
  ],
)
def test_256_devices_draw_full_batches(
  memory, monkeypatch, num, most, expected
):
  monkeypatch.setattr(device_mesh, 'num_batch_shards', lambda mesh: 256)
  memory(10**9)
  given = stages(mesh=tiny_run.mesh())
  assert drawing_batch.batch_size(given, num=num, most=most) == expected


@pytest.mark.parametrize(
  ('image_size', 'whole', 'own'),
  [(64, 256, 256), (128, 85, 256), (256, 21, 256), (1024, 1, 170)],
)
def test_512_devices_hold_on_each_host_what_its_own_devices_draw(
  memory, monkeypatch, caplog, image_size, whole, own
):
  """Four devices to a host, which has 4 GiB for originals and results."""
  monkeypatch.setattr(device_mesh, 'num_batch_shards', lambda mesh: 512)
  monkeypatch.setattr(
    device_mesh, 'local_rows', lambda mesh, size: np.arange(size // 128)
  )
  memory(10**9)
  given, mesh = stages(mesh=tiny_run.mesh()), tiny_run.mesh()
  for limits, expected in (
    (drawing_batch.WHOLE_BATCHES, whole),
    (drawing_batch.OWN_ROWS, own),
  ):
    caplog.clear()
    most = limits.on_hosts(image_size, mesh)
    chosen = drawing_batch.batch_size(given, most=most)
    assert chosen == 512 * expected
    said = f'{expected} images are drawn at once on each device, which has room'
    assert (said in caplog.text) == (expected < 256)


@pytest.mark.parametrize(
  ('given', 'expected'),
  [
    ({}, 64),
    ({'num': 10}, 16),
    ({'num': 100}, 56),  # two batches, of 7 instead of 8 on each
    ({'per_device': 3}, 24),
    ({'per_device': 3, 'num': 10}, 16),
    ({'on_cpus': 32}, 32),
  ],
)
def test_on_eight_cpu_devices_a_batch_is_small(given, expected):
  assert drawing_batch.batch_size(stages(tiny_run.mesh()), **given) == expected


@pytest.mark.parametrize('per_device', [1, 2, None])
def test_the_batch_that_is_drawn_is_not_the_one_that_is_judged(
  per_device, monkeypatch
):
  """Images and their number stay; batches and programs are as many as told."""
  sizes, sampler = [], cascade.sampler
  mesh = tiny_run.mesh()

  def watched(given):
    run = sampler(given)

    def draw(seed, indices, label):
      images = run(seed, indices, label)
      sizes.append(len(indices))
      shards = images[-1].addressable_shards
      assert {x.data.shape[0] for x in shards} == {len(indices) // 8}
      return images

    return draw

  note = {'name': 'large', 'folder': '.', 'checkpoint': 4}
  monkeypatch.setattr(cascade, 'sampler', watched)
  monkeypatch.setattr(
    restore, 'restored_cascade', lambda *_: (stages(mesh), [note])
  )
  monkeypatch.setattr(image_source.stage_stamp, 'of_checkpoint', lambda *_: 'x')
  monkeypatch.setattr(
    loader,
    'load',
    lambda *_: loader.ConfigDict({'name': 'both', 'seed': 3}),
  )
  source = image_source.resolve(
    'c.py@w', Selection(num=21, batch_per_device=per_device)
  )
  network = Projection(None, batch_size=7)
  found = {}
  for indices, images in source.batches(0, network.batch_size):
    features = network.finish(network.start(images))
    found |= dict(zip(indices, features.pool, strict=True))
  drawn = {1: [8, 8, 8], 2: [16, 16], None: [24]}[per_device]
  assert sizes == drawn and source.drawn_at_once == drawn[0]
  assert sorted(found) == list(range(21))
  alone = sampler(stages())
  for n in (0, 8, 20):
    image = np.asarray(alone(3, np.array([n]), None)[-1])
    expected = network.finish(image).pool[0]
    np.testing.assert_array_equal(found[n], expected)


def test_a_folder_is_drawn_in_the_batches_that_were_chosen(
  tmp_path, monkeypatch
):
  shapes, write = [], generate.device_mesh.local_images
  monkeypatch.setattr(
    generate.device_mesh,
    'local_images',
    lambda images: shapes.append(images.shape) or write(images),
  )
  given = stages(tiny_run.mesh())
  generate.draw_to_folder(
    tmp_path,
    given,
    manifest={'seed': 0, 'labels': None},
    num=20,
    batch_size=drawing_batch.batch_size(given, num=20, per_device=2),
  )
  assert shapes == [(16, 4, 4, 3), (16, 8, 8, 3)] * 2
