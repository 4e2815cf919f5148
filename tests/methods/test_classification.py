"""The classifier's loss and statistics against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny_run

from cdm.distributed import device_mesh
from cdm.methods import classification
from cdm.models import resnet
from cdm.ops import resize
from cdm.training import optimizer, step

NET = resnet.ResNet50(num_classes=3, blocks=(1,), features=4, momentum=0.0)
WHOLE = dict(size=8, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)


def bind(image_size=8, net=NET, **recipe):
  return classification.classifier(
    net,
    classification.ClassifierOptions(**({'size': 8} | recipe)),
    image_size=image_size,
    normalise=resnet.normalise,
  )


def batch(n, size=8, seed=0):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (n, size, size, 3)).astype(np.uint8),
    'label': rng.integers(0, 3, n).astype(np.int32),
  }


@functools.cache
def params():
  made = jax.jit(bind(**WHOLE)[0].init)(jax.random.key(1))
  # Off the zeros that a block begins with.
  return jax.tree.map(lambda p: p + 0.1, made)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_the_loss_is_cross_entropy_with_label_smoothing(smoothing):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(7, 5)).astype(np.float32) * 4
  label = rng.integers(0, 5, 7)
  mine = classification.cross_entropy(
    jnp.asarray(logits), jnp.asarray(label), smoothing=smoothing
  )
  target = np.eye(5)[label] * (1 - smoothing) + smoothing / 5
  log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(1))[:, None]
  np.testing.assert_allclose(mine, -(target * log_p).sum(1), rtol=1e-5)
  theirs = optax.softmax_cross_entropy(
    logits, optax.smooth_labels(np.eye(5, dtype=np.float32)[label], smoothing)
  )
  np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_the_loss_smooths_as_its_recipe_says():
  plain, smooth = (
    bind(**WHOLE, label_smoothing=s)[0].loss(
      params(), batch(4), key=jax.random.key(0), train=True
    )[0]
    for s in (0.0, 0.5)
  )
  assert plain.shape == (4,) and np.abs(plain - smooth).min() > 1e-4


def test_statistics_are_those_of_all_images_of_all_batches():
  """Of the first convolution, whose input is known."""
  tester = bind(**WHOLE)[1]
  parts = [batch(4, seed=s) for s in (0, 1, 2)]
  moments = jax.jit(tester.moments)
  found = [moments(params(), b, key=jax.random.key(0)) for b in parts]
  mean = jax.tree.map(lambda *x: sum(x) / 3, *found)
  statistics = classification.moments_to_statistics(mean)
  every = np.concatenate([b['image'] for b in parts])
  first = jax.lax.conv_general_dilated(
    resnet.normalise(every),
    params()['conv1']['kernel'],
    (2, 2),
    [(3, 3), (3, 3)],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  first = np.asarray(first, np.float64)
  np.testing.assert_allclose(
    statistics['bn1']['mean'], first.mean((0, 1, 2)), atol=1e-5
  )
  np.testing.assert_allclose(
    statistics['bn1']['var'], first.var((0, 1, 2)), rtol=1e-4
  )
  assert set(statistics['layer1_0']) >= {'bn1', 'bn2', 'bn3', 'downsample_1'}


def test_a_batch_tested_with_its_own_statistics_says_what_it_does_in_training():
  method, tester = bind(**WHOLE)
  b = batch(6)
  moments = tester.moments(params(), b, key=jax.random.key(0))
  statistics = classification.moments_to_statistics(moments)
  logits = tester.logits(params(), statistics, b['image'])
  value = classification.cross_entropy(logits, b['label'])
  trained, scalars = method.loss(params(), b, key=jax.random.key(0), train=True)
  np.testing.assert_allclose(value, trained, rtol=1e-4)
  right = np.argmax(logits, axis=1) == b['label']
  np.testing.assert_array_equal(scalars['top1'], right)


def test_it_is_tested_on_the_middle_of_an_image():
  (_, small), (_, large) = bind(**WHOLE), bind(12, **WHOLE)
  b = batch(3, size=12)
  key = jax.random.key(0)
  statistics = classification.moments_to_statistics(
    small.moments(params(), batch(6), key=key)
  )
  middle = np.asarray(resize.center_crop(b['image'], 8))
  np.testing.assert_array_equal(
    large.logits(params(), statistics, b['image']),
    small.logits(params(), statistics, middle),
  )


def test_crops_of_training_are_random_and_of_the_example():
  method, _ = bind(12, size=8)
  one = {k: v[[0, 0]] for k, v in batch(1, size=12).items()}
  same = one | {'example': jnp.array([0, 0])}
  other = {**same, 'example': jnp.array([0, 1])}
  loss = jax.jit(lambda b, k: method.loss(params(), b, key=k, train=True)[0])
  first = loss(same, jax.random.key(0))
  assert first[0] == first[1]
  assert np.abs(np.diff(loss(other, jax.random.key(0)))) > 1e-6
  assert np.abs(first - loss(same, jax.random.key(1))).max() > 1e-6


def test_the_mesh_changes_the_speed_not_the_numbers():
  """A batch of eight on eight devices is normalised as one batch."""
  method, _ = bind(12, size=8)
  tx = optimizer.make_sgd(optimizer.SgdOptions(learning_rate=0.1))
  results = []
  for devices in (jax.devices()[:1], jax.devices()):
    mesh = device_mesh.make_mesh(devices=devices)
    state = tiny_run.init_state(
      method.init, tx, key=jax.random.key(0), mesh=mesh
    )
    update = step.make_step(method.loss, tx, mesh=mesh, ema_decay=0.0)
    for seed in (0, 1):
      whole = device_mesh.shard_batch(batch(8, size=12, seed=seed), mesh)
      state, scalars = update(state, whole)
    results.append((jax.device_get(state.params), float(scalars['loss'])))
  (one, loss_one), (eight, loss_eight) = results
  assert loss_one == pytest.approx(loss_eight, rel=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, eight
  )


@pytest.mark.parametrize(
  ('recipe', 'message'),
  [
    (dict(size=9), 'method.size is 9 but images have 8 pixels'),
    (dict(crop_scale=(0.0, 1.0)), r'crop_scale is \(0.0, 1.0\)'),
    (dict(crop_ratio=(2.0, 1.0)), r'crop_ratio is \(2.0, 1.0\)'),
    (dict(label_smoothing=1.0), 'label_smoothing is 1.0'),
    (dict(statistics_batches=0), 'statistics_batches is 0; it must be'),
  ],
)
def test_a_recipe_that_cannot_be_is_refused(recipe, message):
  with pytest.raises(ValueError, match=message):
    bind(**recipe)
