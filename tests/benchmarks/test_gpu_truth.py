"""The reference of the truth job is float64, and its bounds tell TF32 apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import float64_reference, truth, truth_numbers


def test_the_reference_is_numpys_float64():
  rng = np.random.default_rng(0)
  a, b = rng.standard_normal((2, 40, 40)).astype(np.float32)

  def program(a, b):
    low = (a.astype(jnp.bfloat16) @ b.astype(jnp.bfloat16)).astype(jnp.float32)
    scanned, _ = jax.lax.scan(
      lambda x, row: (x * 0.5 + row, None), jnp.zeros(40), low
    )
    looped = jax.lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x) * i, scanned)
    chosen = jax.lax.cond(looped[0] > 9, lambda x: x, lambda x: -x, looped)
    return chosen, jax.nn.silu(scanned).sum()

  chosen, total = float64_reference.in_float64(program)(a, b)
  low = a.astype(np.float64) @ b.astype(np.float64)
  scanned = np.zeros(40)
  for row in low:
    scanned = 0.5 * scanned + row
  looped = scanned
  for i in range(3):
    looped = np.tanh(looped) * i
  assert chosen.dtype == total.dtype == np.float64
  np.testing.assert_allclose(chosen, -looped, rtol=1e-12)
  silu = scanned / (1 + np.exp(-scanned))
  np.testing.assert_allclose(total, silu.sum(), rtol=1e-12)


def test_the_reference_draws_the_same_random_numbers():
  def program(seed):
    one, two = jax.random.split(jax.random.key(seed))
    return jax.random.normal(one, (1000,)), jax.random.bernoulli(two, 0.3, (9,))

  normal, chosen = float64_reference.in_float64(program)(7)
  expected, expected_chosen = program(7)
  # float32's own inverse of erf loses digits in the tails.
  np.testing.assert_allclose(normal, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(chosen, expected_chosen)


def test_the_reference_differentiates():
  """d/dx sum(x^3) = 3 x^2, through a checkpointed function and a jit."""
  x = np.linspace(-2, 2, 9, dtype=np.float32)
  cube = jax.checkpoint(jax.jit(lambda x: x**3))
  gradient = float64_reference.in_float64(jax.grad(lambda x: cube(x).sum()))(x)
  np.testing.assert_allclose(gradient, 3 * x.astype(np.float64) ** 2, 1e-12)


def test_float32_is_within_its_bound_and_tf32_is_not():
  """TF32 is imitated: the operands of every product lose 13 of 24 bits."""
  checks = {c.name: c for c in truth_numbers.checks(smoke=True)}
  function, args = checks['resize'].make('float32')
  reference = float64_reference.in_float64(function)(*args)
  results = truth_numbers.run(function, args, None)
  assert truth_numbers.error(results, reference) < truth_numbers.FLOAT32

  cut = functools.partial(
    jax.lax.reduce_precision, exponent_bits=8, mantissa_bits=10
  )

  def rounded(*args):
    closed = jax.make_jaxpr(function)(*args)
    return jax.core.eval_jaxpr(
      closed.jaxpr, [cut(c) for c in closed.consts], *map(cut, args)
    )

  error = truth_numbers.error(rounded(*args), reference)
  assert truth_numbers.FLOAT32 < error < truth_numbers.TF32


def test_an_error_that_is_not_finite_is_beyond_every_bound():
  reference = [np.ones(3)]
  assert truth_numbers.error([np.array([1, np.nan, 1])], reference) == np.inf
  assert truth_numbers.error([np.array([1, 1, 1.5])], reference) == 0.5


class Recorded:
  """In the place of `result_rows.Rows`."""

  def __init__(self):
    self.rows = []

  def add(self, **figures):
    self.rows.append(figures)


def test_a_verdict_follows_from_the_bound():
  rows = Recorded()
  truth.judge(rows, 'a', 's', 2.0, 1.0, is_wrong=True)
  truth.judge(rows, 'b', 's', 0.5, 1.0, is_wrong=False)
  truth.judge(rows, 'c', 's', 2.0, None, is_wrong=False)
  assert [r['verdict'] for r in rows.rows] == ['WRONG', 'right', 'a figure']
