"""Regression from a low-res image, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.methods import lowres_conditioning, regression
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import pixels
from cdm.ops.keys import image_keys

LOWRES = Lowres(size=4)


class Constant:
  """A network that answers its one parameter everywhere."""

  num_classes = None

  def init(self, keys, x, noise, *, label, train):
    del keys, noise, label, train
    return {'params': {'value': jnp.zeros(x.shape[-1:])}}

  def apply(self, variables, x, noise, *, label, train, **dropout):
    assert noise is None and label is None
    assert bool(dropout) == train
    return jnp.broadcast_to(variables['params']['value'], x.shape)


def made(**options):
  return regression.regression(
    Constant(),
    regression.RegressionOptions(**options),
    image_size=8,
    lowres=LOWRES,
  )


def batch():
  image = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
  return {'image': image, 'label': np.zeros(3, np.int32)}


def loss_of(method, value, train=True):
  given = dict(key=jax.random.key(0), train=train)
  return method.loss({'value': jnp.asarray(value)}, batch(), **given)[0]


@pytest.mark.parametrize('norm, middle', [(2, np.mean), (1, np.median)])
def test_the_best_constant_is_the_mean_or_the_median(norm, middle):
  """[SR3]: what a regression learns is a mean, which is blurred."""
  x_0 = np.asarray(pixels.to_float(batch()['image']))
  best = np.array([middle(x_0[..., c]) for c in range(3)], np.float32)
  method = made(norm=norm)
  least = float(loss_of(method, best).mean())
  error = np.abs(x_0 - best) ** norm
  np.testing.assert_allclose(least, error.mean(), rtol=1e-5)
  for change in (-0.05, 0.05):
    assert float(loss_of(method, best + change).mean()) > least


def test_held_out_images_have_the_same_loss_without_dropout():
  method = made()
  value = np.zeros(3, np.float32)
  np.testing.assert_array_equal(
    loss_of(method, value), loss_of(method, value, train=False)
  )


def test_a_network_of_zeros_gives_the_upsampled_image():
  """With a residual as the target; its scale divides the error."""
  low = pixels.to_float(batch()['image'][:, ::2, ::2])
  params = {'value': jnp.zeros(3)}
  x = made(residual_scale=0.5).sample(
    params, keys=image_keys(0, np.arange(3)), lowres=low
  )
  up = lowres_conditioning.upsample(low, 8, LOWRES)
  np.testing.assert_array_equal(x, jnp.clip(up, -1, 1))
  zeros = np.zeros(3, np.float32)
  half, one = (
    loss_of(made(residual_scale=scale), zeros) for scale in (0.5, 1.0)
  )
  np.testing.assert_allclose(half, 4 * one, rtol=1e-5)


@pytest.mark.parametrize(
  'options, lowres, words',
  [
    ({}, None, "kind='regression' predicts an image from its low-res image"),
    ({}, Lowres(size=4, augment='noise'), "lowres.augment is 'noise'"),
    ({'norm': 3}, LOWRES, 'method.norm is 3; use 1 or 2'),
    ({'residual_scale': 0.0}, LOWRES, 'method.residual_scale is 0.0'),
  ],
)
def test_what_it_cannot_use_is_refused(options, lowres, words):
  with pytest.raises(ValueError) as error:
    regression.regression(
      Constant(),
      regression.RegressionOptions(**options),
      image_size=8,
      lowres=lowres,
    )
  assert words in str(error.value)
