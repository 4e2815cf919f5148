"""Regression of degraded low-res images of many sizes, against closed forms."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.data import low_res_inputs
from cdm.methods import degraded_regression
from cdm.methods.lowres_conditioning import Lowres
from cdm.models.unshuffled_resnet import UnshuffledResnet
from cdm.ops import pixels, resize

SIZE, LOWRES = 16, Lowres(size=4)


class Echo:
  """Answers the enlarged image plus its parameter, and keeps the levels."""

  patch_size = 4
  margin = 8
  levels = None

  def init(self, key, x, levels, *, train):
    del key, x, train
    self.levels = levels
    return {'params': {'value': jnp.zeros(3)}}

  def apply(self, variables, x, levels, *, train):
    del train
    self.levels = levels
    image = x + variables['params']['value'][None, None, None]
    return types.SimpleNamespace(image=image)


def made(net=None, num_levels=4, **options):
  net = Echo() if net is None else net
  options = degraded_regression.DegradedRegressionOptions(**options)
  return net, degraded_regression.degraded_regression(
    net, options, image_size=SIZE, lowres=LOWRES, num_levels=num_levels
  )


def image(seed=0, count=3):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def loss_of(method, batch, value=0.0):
  params = {'value': jnp.full(3, value)}
  batch = {k: jnp.asarray(v) for k, v in batch.items()}
  return method.loss(params, batch, key=jax.random.key(0), train=True)


def paired(sizes):
  low = image(seed=1, count=len(sizes))
  return {
    'image': image(count=len(sizes)),
    'label': np.zeros(len(sizes), np.int32),
    'lowres': low,
    'lowres_size': np.array(sizes, np.int32),
    'levels': np.arange(4.0 * len(sizes)).reshape(-1, 4).astype(np.float32),
  }


def test_a_given_low_res_image_is_enlarged_as_the_one_resize_does():
  """Whatever its size; what lies beside it on its canvas does not matter."""
  sizes = [4, 7, 16]
  batch = paired(sizes)
  net, method = made(border_weight=0.0)
  loss, scalars = loss_of(method, batch)
  x_0 = np.asarray(pixels.to_float(batch['image']))
  for i, size in enumerate(sizes):
    z = pixels.to_float(batch['lowres'][i, :size, :size])
    error = np.asarray(resize.resize(z, SIZE)) - x_0[i]
    np.testing.assert_allclose(loss[i], np.abs(error).mean(), rtol=1e-5)
  np.testing.assert_array_equal(loss, scalars['l1'])
  np.testing.assert_array_equal(net.levels, batch['levels'])


def test_without_given_images_the_input_is_clean_and_as_the_config_says():
  net, method = made(border_weight=0.0)
  batch = {'image': image(), 'label': np.zeros(3, np.int32)}
  loss, _ = loss_of(method, batch)
  low = resize.resize_uint8(batch['image'], 4)
  up = np.asarray(resize.resize(pixels.to_float(low), SIZE))
  error = up - np.asarray(pixels.to_float(batch['image']))
  np.testing.assert_allclose(
    loss, np.abs(error).mean(axis=(1, 2, 3)), rtol=1e-5
  )
  clean = low_res_inputs.levels(4.0, low_res_inputs.CLEAN)
  np.testing.assert_allclose(net.levels, np.tile(clean, (3, 1)))


def test_the_pattern_of_squares_is_seen_where_nothing_hides_it():
  """In closed form, of a pattern, of what each square has, and of noise."""
  rng, seen = np.random.default_rng(0), degraded_regression.SEEN
  pattern = 0.3 * seen * rng.normal(size=(4, 4, 3))
  pattern -= pattern.mean(axis=(0, 1))
  tiled = np.tile(pattern, (1, 8, 12, 1))
  power = (pattern**2).mean(axis=(0, 1))
  expected = (power * seen**2 / (power + seen**2)).mean()
  weave = degraded_regression.weave
  np.testing.assert_allclose(weave(jnp.asarray(tiled), 4), expected, rtol=1e-4)
  # The mean of each square is no pattern.
  squares = rng.normal(size=(1, 8, 12, 3)).repeat(4, axis=1).repeat(4, axis=2)
  np.testing.assert_allclose(weave(jnp.asarray(squares), 4), 0, atol=1e-12)
  # Of noise of variance s^2 the mean of 16 squares keeps a sixteenth.
  noise = 0.1 * rng.normal(size=(2, 320, 320, 3))
  power = 0.01 * 15 / 16
  expected = power / 16 * seen**2 / (power + seen**2)
  np.testing.assert_allclose(weave(jnp.asarray(noise), 4), expected, rtol=0.05)


def test_the_pattern_has_its_weight_in_the_loss():
  batch = paired([16, 16])
  _, plain = made(border_weight=0.0)
  _, method = made(border_weight=0.0, weave_weight=7.0)
  (without, _), (loss, _) = (loss_of(m, batch) for m in (plain, method))
  error = pixels.to_float(batch['lowres']) - pixels.to_float(batch['image'])
  found = degraded_regression.weave(jnp.asarray(error), 4)
  np.testing.assert_allclose(loss - without, 7 * found, rtol=0.05)
  assert (found > 0).all()


def test_the_second_term_sees_differences_across_borders_of_squares_alone():
  batch = paired([16])
  flat = np.full((1, SIZE, SIZE, 3), 100, np.uint8)
  batch |= {'lowres': flat.copy(), 'image': flat}

  def terms(changed):
    given = batch | {'lowres': changed}
    with_term, without = (
      loss_of(made(border_weight=w)[1], given)[0][0] for w in (2.0, 0.0)
    )
    return float(with_term - without)

  inside = flat.copy()
  inside[:, 5:7, 5:7] += 51  # within the square 4..7: 51 levels are 0.4
  assert terms(inside) == pytest.approx(0.0, abs=1e-6)
  corner = flat.copy()
  corner[:, 4:8, 4:8] += 51  # all of it: 4 pixels on each of four borders
  borders = 2 * 3 * 16 * 3  # values beside borders, of both directions
  expected = 2.0 * 0.4 * 4 * 4 * 3 / borders
  assert terms(corner) == pytest.approx(expected, rel=1e-4)
  pixel = flat.copy()
  pixel[:, 4, 4] += 51  # the first of its square: beside two borders
  expected = 2.0 * 0.4 * 2 * 3 / borders
  assert terms(pixel) == pytest.approx(expected, rel=1e-4)


def test_squared_errors_are_squared_in_both_terms():
  batch = paired([16])
  batch['lowres'] = batch['image']
  loss, _ = loss_of(made(norm=2, border_weight=5.0)[1], batch, value=0.5)
  assert float(loss[0]) == pytest.approx(0.25, rel=1e-4)  # no difference is off


def test_sampling_enlarges_clean_images_of_any_size():
  net, method = made()
  low = pixels.to_float(image()[:, :8, :8])
  keys = jax.random.split(jax.random.key(0), 3)
  x = method.sample({'value': jnp.zeros(3)}, keys=keys, lowres=low)
  up = jnp.clip(resize.resize(low, SIZE), -1, 1)
  np.testing.assert_array_equal(x, up)
  np.testing.assert_array_equal(net.levels[:, 0], [1.0] * 3)  # log2 of 2
  assert not net.levels[:, 1:].any()


def test_the_network_can_learn_to_undo_what_the_levels_tell():
  """A few steps of gradient descent lower the loss."""
  net = UnshuffledResnet(
    features=4, num_blocks=1, patch_size=2, embedding_features=4
  )
  _, method = made(net)
  batch = {k: jnp.asarray(v) for k, v in paired([4, 8, 16]).items()}
  batch['levels'] = batch['levels'] / 10
  params = method.init(jax.random.key(0))

  @jax.jit
  def step(params):
    def mean(p):
      loss, _ = method.loss(p, batch, key=jax.random.key(0), train=True)
      return loss.mean()

    loss, grads = jax.value_and_grad(mean)(params)
    return loss, jax.tree.map(lambda p, g: p - 0.3 * g, params, grads)

  losses = []
  for _ in range(20):
    loss, params = step(params)
    losses.append(float(loss))
  assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize(
  ('options', 'lowres', 'words'),
  [
    ({}, None, 'lowres is None'),
    ({}, Lowres(size=4, augment='blur'), "lowres.augment is 'blur'"),
    ({}, Lowres(size=4, upsample='area'), "lowres.upsample 'area'"),
    ({'norm': 3}, LOWRES, 'method.norm is 3'),
    ({'border_weight': -1.0}, LOWRES, 'method.border_weight is -1.0'),
  ],
)
def test_what_it_cannot_use_is_refused(options, lowres, words):
  options = degraded_regression.DegradedRegressionOptions(**options)
  with pytest.raises(ValueError) as error:
    degraded_regression.degraded_regression(
      Echo(), options, image_size=SIZE, lowres=lowres, num_levels=4
    )
  assert words in str(error.value)


def test_images_that_are_no_whole_squares_are_refused():
  with pytest.raises(ValueError, match='patch_size is 4, but images of 18'):
    degraded_regression.degraded_regression(
      Echo(),
      degraded_regression.DegradedRegressionOptions(),
      image_size=18,
      lowres=Lowres(size=9),
      num_levels=4,
    )
