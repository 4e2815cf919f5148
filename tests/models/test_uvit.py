"""simple diffusion's U-ViT: how it starts, what reaches it, what it drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_params import moved

from cdm.models import uvit
from cdm.models.uvit import UVit

NET = UVit(
  features=8,
  multipliers=(1, 4),
  num_blocks=1,
  num_transformers=1,
  head_features=16,
  transformer_dropout=0.5,
  num_classes=4,
  null_class=True,
  lowres_level=True,
  patch_size=2,
  norm_groups=4,
)
N = 7


def inputs():
  """-> (x, noise, conditions) of `N` images that are alike."""
  normal = np.random.default_rng(0).standard_normal
  x, lowres = (
    np.repeat(normal((1, 16, 16, 3)), N, 0).astype(np.float32) for _ in 'ab'
  )
  given = dict(
    label=np.zeros(N, int), lowres=lowres, lowres_level=np.zeros(N, np.float32)
  )
  return x, np.zeros(N, np.float32), given


@jax.jit
def evaluate(params, x, noise, given):
  return NET.apply({'params': params}, x, noise, train=False, **given)


@pytest.fixture(scope='module')
def params():
  x, noise, given = inputs()
  new = jax.jit(lambda key: NET.init(key, x, noise, train=False, **given))
  return new(jax.random.key(0))['params']


def test_a_new_network_predicts_nothing(params):
  found = evaluate(params, *inputs())
  assert found.shape == (N, 16, 16, 3) and not found.any()


def test_all_inputs_reach_every_pixel(params):
  x, noise, given = inputs()
  x[1, 0, 0] += 1.0
  given['lowres'][2, 0, 0] += 1.0
  noise[3], given['lowres_level'][4], given['label'][5] = 2.0, 0.5, 1
  given['label'][6] = 4  # the null class
  found = np.asarray(evaluate(moved(params), x, noise, given))
  corner = np.abs(found[1:] - found[0])[:, -1, -1].max(axis=-1)
  assert (corner > 1e-4).all(), corner


def test_the_transformer_alone_drops_out(params):
  """By example, whatever the rest of the batch is."""
  x, noise, given = inputs()

  @jax.jit
  def dropped(params, examples):
    return NET.apply(
      {'params': params},
      *(x, noise),
      **given,
      examples=examples,
      train=True,
      rngs={'dropout': jax.random.key(1)},
    )

  some = moved(params)
  first = np.asarray(dropped(some, jnp.arange(N)))
  assert np.abs(first[1:] - first[0]).max(axis=(1, 2, 3)).min() > 1e-4
  turned = dropped(some, jnp.arange(N)[::-1])
  np.testing.assert_allclose(turned[::-1], first, atol=1e-5)
  # What is dropped lies before `mlp2`.
  still = some | {'transformer_0': dict(some['transformer_0'])}
  layer = still['transformer_0']['mlp2']
  still['transformer_0']['mlp2'] = jax.tree.map(jnp.zeros_like, layer)
  found = dropped(still, jnp.arange(N))
  np.testing.assert_allclose(found, evaluate(still, *inputs()), atol=1e-5)


def test_a_patch_and_a_level_halve_the_tokens():
  levels = uvit.plan(NET, (32, 32))
  assert [level.size for level in levels] == [(16, 16), (8, 8)]
  assert levels[1].num_heads == 2 and levels[0].num_heads == 0


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('multipliers', (1,)),
    ('num_blocks', (1, 1)),
    ('num_blocks', 0),
    ('dropout', (0.1, 0.1)),
    ('transformer_dropout', 1.0),
    ('num_transformers', 0),
    ('mlp_ratio', 0),
    ('head_features', 24),
    ('remat', 'some'),
  ],
)
def test_a_field_that_no_network_can_have_is_named(field, value):
  with pytest.raises(ValueError, match=f'^{field} '):
    uvit.plan(NET.clone(**{field: value}), (32, 32))
