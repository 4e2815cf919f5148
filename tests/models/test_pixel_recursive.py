"""The network of pixel recursive super-resolution, in parallel and in steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from benchmarks.pixel_recursive import naive
from cdm.models.pixel_recursive import PixelRecursive

B, LOW = 2, (3, 4)  # low-res h, w; not square
SHAPE = (2 * LOW[0], 2 * LOW[1], 3)


def network(**kw):
  return PixelRecursive(
    magnification=2,
    features=7,
    num_layers=2,
    hidden_features=9,
    conditioning_features=6,
    conditioning_blocks=1,
    norm_groups=2,
    **kw,
  )


@functools.cache
def small():
  """-> (network, parameters off zero, low-res images)."""
  net = network()
  lowres = jax.random.uniform(jax.random.key(0), (B, *LOW, 3), minval=-1)
  params = jax.jit(functools.partial(net.init, train=False))(
    jax.random.key(1), jnp.zeros((B, *SHAPE)), lowres=lowres
  )['params']
  rng = np.random.default_rng(2)
  params = jax.tree.map(
    lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), params
  )
  return net, params, lowres


def in_parallel(levels):
  net, params, lowres = small()
  forward = functools.partial(net.apply, train=False)
  return jax.jit(forward)({'params': params}, levels, lowres=lowres)


def test_steps_have_the_logits_of_the_parallel_network():
  """With a given image in the place of draws, to 1e-5."""
  net, params, lowres = small()
  levels = jax.random.randint(jax.random.key(3), (B, *SHAPE), 0, 256)
  flat = levels.reshape(B, -1)

  def pick(logits, s):
    return flat[:, s], logits

  walked, logits = jax.jit(lambda p: net.walk(p, lowres, pick))(params)
  conditioning, prior = in_parallel(levels)
  assert float(prior.std()) > 0.1 and float(conditioning.std()) > 0.1
  np.testing.assert_array_equal(walked, levels)
  np.testing.assert_allclose(
    jnp.moveaxis(logits, 3, 0), conditioning + prior, atol=1e-5
  )


def test_steps_draw_what_whole_runs_of_the_network_draw():
  net, params, lowres = small()

  def pick(logits, s):
    noise = jax.random.gumbel(
      jax.random.fold_in(jax.random.key(4), s), (B, 256)
    )
    return jnp.argmax(logits + noise, axis=-1), logits

  fast, logits = jax.jit(lambda p: net.walk(p, lowres, pick))(params)
  slow, expected = jax.jit(lambda p: naive(net, p, lowres, pick))(params)
  assert len(np.unique(fast)) > 50
  np.testing.assert_array_equal(fast, slow)
  np.testing.assert_allclose(
    logits.reshape(expected.shape), expected, atol=1e-5
  )


def test_a_split_network_is_gathered_before_the_steps_and_not_in_them(
  monkeypatch,
):
  net, params, lowres = small()
  events, scan = [], jax.lax.scan
  monkeypatch.setattr(
    meta.Partitioned, 'unbox', lambda box: events.append('open') or box.value
  )
  monkeypatch.setattr(
    jax.lax, 'scan', lambda *a, **k: events.append('scan') or scan(*a, **k)
  )
  boxed = jax.tree.map(lambda x: meta.Partitioned(x, ()), params)
  jax.eval_shape(
    lambda p: net.walk(p, lowres, lambda x, s: (x[:, 0].astype(int), ())), boxed
  )
  opened = len(jax.tree.leaves(params))
  assert events == ['open'] * opened + ['scan'] * 2


@pytest.mark.parametrize('magnification', [1, 2, 8])
def test_the_conditioning_network_doubles_as_often_as_it_must(magnification):
  net = network().clone(magnification=magnification)
  size = 2 * magnification
  given = (jnp.zeros((1, size, size, 3)),)
  (a, b), _ = jax.eval_shape(
    lambda key: net.init_with_output(
      key, *given, lowres=jnp.zeros((1, 2, 2, 3)), train=False
    ),
    jax.random.key(0),
  )
  assert a.shape == b.shape == (1, size, size, 3, 256)


def test_only_logits_and_normalisations_stay_float32_in_bfloat16():
  net = network(dtype='bfloat16')
  _, params, lowres = small()
  out = jax.eval_shape(
    functools.partial(net.apply, train=False),
    {'params': params},
    jnp.zeros((B, *SHAPE)),
    lowres=lowres,
  )
  assert {x.dtype for x in out} == {jnp.dtype('float32')}
  names = [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]
  exact = {n for n in names if net.parameter_dtype(n) == jnp.float32}
  assert exact == {n for n in names if 'logits' in n or '/norm' in n}
