"""Pixel recursive super-resolution against what known logits must give.

A fresh network has no logits but the biases of its last layers, so losses and
the frequencies of drawn levels have closed forms.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.methods import pixel_recursive
from cdm.methods.lowres_conditioning import Lowres
from cdm.models.pixel_recursive import PixelRecursive
from cdm.ops import pixels
from cdm.ops.keys import image_keys

SIZE, B = 4, 3


def bound(temperature=1.0, magnification=2, **lowres):
  net = PixelRecursive(
    magnification=magnification,
    features=6,
    num_layers=1,
    hidden_features=6,
    conditioning_features=4,
    conditioning_blocks=1,
    norm_groups=2,
  )
  return pixel_recursive.PixelRecursive(
    net,
    pixel_recursive.Options(temperature),
    SIZE,
    Lowres(size=SIZE // magnification, **lowres),
  )


@functools.cache
def fresh():
  return jax.jit(bound().init)(jax.random.key(0))


def with_biases(a, b):
  """-> parameters whose logits are a and b [3, 256], at every pixel."""
  params = jax.tree.map(lambda x: x, fresh())
  for name, bias in (('conditioning', a), ('prior', b)):
    logits = params[name]['logits']
    params[name]['logits'] = logits | {'bias': jnp.asarray(bias).ravel()}
  return params


def logits_of(seed):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(3, 256)).astype(np.float32)


def batch():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (B, SIZE, SIZE, 3), np.uint8)
  return {'image': image, 'label': np.zeros(B, np.int32)}


def log_softmax(x):
  x = x.astype(np.float64)
  return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


@functools.cache
def compiled_loss():
  return jax.jit(functools.partial(bound().loss, train=True))


def loss(params):
  return compiled_loss()(params, batch(), key=jax.random.key(1))


@functools.cache
def compiled_sample():
  """The sampler, with its settings as arguments."""
  return jax.jit(bound().sample)


def levels_of(params, temperature, n=B, seed=0):
  x = compiled_sample()(
    params,
    keys=image_keys(seed, np.arange(n)),
    lowres=jnp.zeros((n, SIZE // 2, SIZE // 2, 3)),
    tuned=bound(temperature).tune(),
  )
  return np.asarray(pixels.to_uint8(x))


def test_a_fresh_network_knows_nothing_and_needs_eight_bits():
  value, scalars = loss(fresh())
  np.testing.assert_allclose(value, 2 * math.log(256), rtol=1e-6)
  for bits in scalars.values():
    np.testing.assert_allclose(bits, 8.0, rtol=1e-6)


def test_the_loss_is_both_cross_entropies_and_the_first_is_the_likelihood():
  a, b = logits_of(1), logits_of(2)
  value, scalars = loss(with_biases(a, b))
  image = batch()['image'].reshape(B, -1, 3)

  def entropy(logits):  # -> [B], nats per sub-pixel
    log_p = log_softmax(logits)
    return -np.mean([log_p[c][image[..., c]] for c in range(3)], axis=(0, 2))

  np.testing.assert_allclose(value, entropy(a + b) + entropy(a), rtol=1e-5)
  bits = entropy(a + b) / math.log(2)
  np.testing.assert_allclose(scalars['bits_per_dim'], bits, rtol=1e-5)
  np.testing.assert_allclose(
    scalars['conditioning_bits_per_dim'], entropy(a) / math.log(2), rtol=1e-5
  )
  own = jax.jit(bound().bits_per_dim)(with_biases(a, b), batch()['image'])
  np.testing.assert_allclose(own, bits, rtol=1e-5)


def moved():
  rng = np.random.default_rng(2)
  return jax.tree.map(
    lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), fresh()
  )


def test_the_likelihood_is_the_same_in_parallel_and_step_by_step():
  method, params, image = bound(), moved(), batch()['image']
  flat = jnp.asarray(image.reshape(B, -1), jnp.int32)
  lowres = jax.random.uniform(jax.random.key(3), (B, 2, 2, 3), minval=-1)

  def pick(logits, s):
    return flat[:, s], pixel_recursive.log_p(logits, flat[:, s])

  _, log_p = jax.jit(lambda p: method.net.walk(p, lowres, pick))(params)
  by_steps = -log_p.mean(axis=(0, 1, 2)) / math.log(2)  # [B]
  in_parallel = jax.jit(method.bits_per_dim)(params, image, lowres)
  assert float(jnp.abs(by_steps - 8).min()) > 1e-2
  np.testing.assert_allclose(by_steps, in_parallel, rtol=1e-5)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 1.3])
def test_levels_are_as_frequent_as_the_softmax_of_tau_times_logits(temperature):
  """Over 8192 draws of each colour, within five standard deviations."""
  n = 512
  half = np.full((3, 256), -40.0, np.float32)
  half[0, [3, 250]], half[1, [9, 10]], half[2, [0, 255]] = [
    [0.0, 1.0],
    [1.0, -0.5],
    [0.3, 0.0],
  ]
  drawn = levels_of(with_biases(half, half), temperature, n=n)
  p = np.exp(log_softmax(temperature * 2 * half))
  for colour in range(3):
    seen = np.bincount(drawn[..., colour].ravel(), minlength=256)
    count = n * SIZE * SIZE
    spread = np.sqrt(count * p[colour] * (1 - p[colour]))
    assert (np.abs(seen - count * p[colour]) <= 5 * spread + 1e-3).all()


def test_a_high_temperature_takes_the_likeliest_and_a_low_one_any_level():
  a = logits_of(1)
  params = with_biases(a, np.zeros_like(a))
  likeliest = np.broadcast_to(a.argmax(axis=1), (B, SIZE, SIZE, 3))
  np.testing.assert_array_equal(levels_of(params, 1e6), likeliest)
  flat = levels_of(with_biases(1e3 * a, a), 1e-9, n=512)
  counts = np.bincount(flat.ravel(), minlength=256)
  assert np.abs(counts - flat.size / 256).max() < 6 * np.sqrt(flat.size / 256)


def test_the_temperature_is_an_argument_of_the_compiled_sampler():
  params = moved()
  assert (
    levels_of(params, 1e6, seed=0) == levels_of(params, 1e6, seed=1)
  ).all()
  assert (
    levels_of(params, 1.0, seed=0) != levels_of(params, 1.0, seed=1)
  ).any()
  assert bound(1.2).tune().temperature == np.float32(1.2)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(temperature=0.0), r'method.temperature is 0.0; .* above 0'),
    (dict(temperature=math.inf), r'method.temperature is inf'),
    (dict(augment='noise'), "lowres.augment is 'noise', whose level"),
  ],
)
def test_an_option_that_does_not_fit_is_named(given, message):
  with pytest.raises(ValueError, match=message):
    bound(**given)


def test_a_magnification_that_is_not_reached_by_doubling_is_refused():
  net = bound().net.clone(magnification=3)
  with pytest.raises(ValueError, match='which does not give 3 times'):
    pixel_recursive.check(net, pixel_recursive.Options(), Lowres(size=2))
