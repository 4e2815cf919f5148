"""GroupNorm with FiLM and SiLU gives the numbers of NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.models import group_norm

EPS = 1e-3
SHAPE, GROUPS = (2, 3, 2, 6), 2


def normals(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.standard_normal(shape) for _ in range(2)]


def given():
  """-> x [B, H, W, C], gain and shift [B, C]."""
  b, _, _, c = SHAPE
  return 2 + 3 * normals(*SHAPE)[0], *normals(b, c, seed=1)


def directions_of(arguments):
  return [normals(*a.shape, seed=2 + i)[0] for i, a in enumerate(arguments)]


def expected(x, gain, shift, silu):
  """In NumPy."""
  b, h, w, c = x.shape
  grouped = x.reshape(b, h * w, GROUPS, c // GROUPS)
  mean = grouped.mean(axis=(1, 3), keepdims=True)
  variance = grouped.var(axis=(1, 3), keepdims=True)
  z = ((grouped - mean) / np.sqrt(variance + EPS)).reshape(x.shape)
  z = z * gain[:, None, None] + shift[:, None, None]
  return z / (1 + np.exp(-z)) if silu else z


def normalised(x, gain, shift, silu):
  return group_norm.normalised(
    x,
    gain,
    shift,
    num_groups=GROUPS,
    eps=EPS,
    silu=silu,
    dtype=x.dtype,
  )


def slope(function, arguments, directions, step=1e-6):
  """The derivative along the directions, by central differences."""
  ends = [
    function(
      *(a + sign * step * d for a, d in zip(arguments, directions, strict=True))
    )
    for sign in (1, -1)
  ]
  return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize('silu', [False, True])
def test_values_and_derivatives_of_both_modes_are_those_of_numpy(silu):
  """All in float64, along random directions."""
  arguments = given()
  directions = [
    normals(*a.shape, seed=2 + i)[0] for i, a in enumerate(arguments)
  ]
  reference = functools.partial(expected, silu=silu)
  with jax.enable_x64(True):
    function = functools.partial(normalised, silu=silu)
    inputs, moves = (
      [jnp.asarray(a) for a in arrays] for arrays in (arguments, directions)
    )
    y, dy = jax.jvp(function, inputs, moves)
    probe = normals(*SHAPE, seed=7)[0]
    gradients = jax.vjp(function, *inputs)[1](jnp.asarray(probe))
    np.testing.assert_allclose(y, reference(*arguments), atol=1e-12)
  np.testing.assert_allclose(
    dy, slope(reference, arguments, directions), atol=1e-7
  )
  for i, gradient in enumerate(gradients):
    along = [
      d if j == i else np.zeros_like(d) for j, d in enumerate(directions)
    ]
    np.testing.assert_allclose(
      (np.asarray(gradient) * along[i]).sum(),
      (slope(reference, arguments, along) * probe).sum(),
      atol=1e-6,
    )


def test_second_derivatives_exist():
  """A penalty of a gradient takes them; checked along one direction."""
  arguments = given()
  directions = [
    normals(*a.shape, seed=2 + i)[0] for i, a in enumerate(arguments)
  ]
  with jax.enable_x64(True):
    inputs, moves = (
      [jnp.asarray(a) for a in arrays] for arrays in (arguments, directions)
    )

    def first(*inputs):
      function = functools.partial(normalised, silu=True)
      return jnp.square(jax.jvp(function, inputs, tuple(moves))[1]).sum()

    gradients = jax.grad(first, (0, 1, 2))(*inputs)
    along = sum((g * d).sum() for g, d in zip(gradients, moves, strict=True))
    by_differences = slope(first, inputs, moves, step=1e-5)
  np.testing.assert_allclose(along, by_differences, rtol=1e-6)


def test_film_multiplies_what_the_parameters_have_scaled():
  x, film_scale, film_shift = (jnp.asarray(a, jnp.float32) for a in given())
  norm = group_norm.GroupNorm(GROUPS, EPS)
  scale, bias = (
    jnp.asarray(a, jnp.float32) for a in normals(SHAPE[-1], seed=9)
  )
  params = {'params': {'scale': scale, 'bias': bias}}
  found = norm.apply(params, x, (film_scale, film_shift), silu=True)
  plain = norm.apply(params, x)
  z = plain * (1 + film_scale[:, None, None]) + film_shift[:, None, None]
  np.testing.assert_allclose(found, jax.nn.silu(z), atol=1e-5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_gradient_keeps_the_input_and_statistics_but_no_other_map(dtype):
  """And it keeps the input as it is: bfloat16 is not stored as float32."""
  shape = jax.ShapeDtypeStruct((4, 32, 32, 8), dtype)
  vector = jax.ShapeDtypeStruct((4, 8), jnp.float32)

  def kept(x, gain, shift):
    return jax.vjp(functools.partial(normalised, silu=True), x, gain, shift)[1]

  arrays = jax.tree.leaves(jax.eval_shape(kept, shape, vector, vector))
  maps = [a for a in arrays if a.size > 4 * 8]
  assert [(a.shape, a.dtype) for a in maps] == [(shape.shape, dtype)]  # x


@pytest.mark.parametrize(
  'channels, norm_groups, expected',
  [
    (32, 32, 32),  # as every published network has it
    (96, 32, 32),
    (512, 32, 32),
    (16, 32, 4),  # 256 -> 1024 of SR3
    (48, 32, 8),
    (24, 32, 4),
    (20, 32, 4),
    (12, 16, 2),
    (7, 32, 1),
    (3, 32, 1),
  ],
)
def test_few_channels_make_fewer_groups(channels, norm_groups, expected):
  assert group_norm.group_count(channels, norm_groups) == expected
  assert channels % expected == 0


@pytest.mark.parametrize('dtype, tol', [('float32', 2e-3), ('bfloat16', 2e-2)])
def test_a_large_mean_does_not_spoil_the_normalisation(dtype, tol):
  """Mean 3000, spread 1: E[x^2] - E[x]^2 is negative noise in float32."""
  x = 3000 + normals(2, 4, 4, 8)[0].astype(np.float64)
  x = np.asarray(jnp.asarray(x, dtype), np.float64)  # what dtype can hold
  norm = group_norm.GroupNorm(num_groups=2, eps=1e-5, dtype=jnp.dtype(dtype))
  y, _ = norm.init_with_output(jax.random.key(0), jnp.asarray(x, dtype))
  groups = x.reshape(2, 16, 2, 4)
  mean = groups.mean(axis=(1, 3), keepdims=True)
  variance = groups.var(axis=(1, 3), keepdims=True)
  expected = (groups - mean) / np.sqrt(variance + 1e-5)
  assert y.dtype == dtype
  np.testing.assert_allclose(
    np.asarray(y, np.float64), expected.reshape(x.shape), atol=tol
  )
