"""Runs the loop of a sampler over the coefficients of its steps.

A sampler has a table: a function of its grid and options that returns
coefficients, one row per step, in float64 on the host. `run` takes them, or the
`Steps` that hold them as arrays, through one loop on the device. `on_host`
makes it a loop of Python, for a denoiser that is no single program.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Rows of `Steps` are filled up to a multiple of this, so that most grids make
# arrays of one shape.
STEPS_UNIT = 256
# The row that says by 1 which steps evaluate the network a second time.
AGAIN = 'again'

Sampler = Callable[..., jax.Array] | functools.partial[jax.Array]
Table = Callable[..., dict[str, np.ndarray]]

_TABLES: dict[Any, Table] = {}
_ON_HOST = contextvars.ContextVar('on_host', default=False)


class Steps(NamedTuple):
  """The coefficients of a sampler on one grid, as arrays.

  Attributes:
    rows: {name: float32 [M]}, one entry per step; those from `count` on are not
      used.
    count: int32 [], the number of steps.
  """

  rows: dict[str, np.ndarray | jax.Array]
  count: np.ndarray | jax.Array


@contextlib.contextmanager
def on_host() -> Generator[None]:
  """Runs the loops of samplers step by step on the host, in this context.

  The operations of a step run as they are called, and its denoiser may do what
  no traced function can: cut a large picture into windows, and report progress.
  The coefficients must be concrete.
  """
  token = _ON_HOST.set(True)
  try:
    yield
  finally:
    _ON_HOST.reset(token)


def tabled(table: Table) -> Callable[[Any], Any]:
  """Returns a decorator that tells `steps` the table of a sampler.

  Args:
    table: (grid, **options of the sampler) -> {name: [N]}; one of the names is
      'logsnr', the level at which a step evaluates the network.
  """

  def decorated(sampler):
    _TABLES[sampler] = table
    return sampler

  return decorated


def steps(run: Sampler, logsnrs: np.ndarray) -> Steps:
  """Returns the `Steps` of a grid, for a sampler to take as `logsnrs`.

  Args:
    run: a sampler, or a functools.partial with its options.
    logsnrs: the grid, see `samplers`.

  Raises:
    ValueError: an error of the sampler about the grid or its options.
  """
  rows = _rows(run, logsnrs)
  count = len(rows['logsnr'])
  unused = -count % STEPS_UNIT
  filled = {k: np.pad(v, (0, unused)) for k, v in rows.items()}
  return Steps(
    {k: v.astype(np.float32) for k, v in filled.items()},
    np.asarray(count, np.int32),
  )


def evaluations(run: Sampler, logsnrs: np.ndarray) -> int:
  """Returns how often a sampler evaluates the network on a grid.

  Args:
    run, logsnrs: see `steps`.
  """
  return len(evaluated_levels(run, logsnrs))


def evaluated_levels(run: Sampler, logsnrs: np.ndarray) -> np.ndarray:
  """Returns the log-SNR of every evaluation of the network on a grid, [M].

  Args:
    run, logsnrs: see `steps`.
  """
  rows = _rows(run, logsnrs)
  return _levels(rows, len(rows['logsnr']))


def levels_of(taken: Steps) -> np.ndarray:
  """Returns the same for `Steps` of the host."""
  rows = {name: np.asarray(row) for name, row in taken.rows.items()}
  return _levels(rows, int(taken.count))


def _levels(rows, count):
  """Returns the levels of all evaluations, those of second ones at the end."""
  first = rows['logsnr'][:count]
  if AGAIN not in rows:
    return first
  [second] = (row for name, row in rows.items() if name.startswith('logsnr_'))
  return np.concatenate([first, second[:count][rows[AGAIN][:count] > 0]])


def coefficients(
  table: Table, logsnrs: np.ndarray | Steps, **options: Any
) -> dict[str, np.ndarray] | Steps:
  """Returns the coefficients of a grid, which may be `Steps` already."""
  if isinstance(logsnrs, Steps):
    return logsnrs
  return table(logsnrs, **options)


def scan(
  step: Callable[..., Any],
  carry: Any,
  coefficients: dict[str, np.ndarray] | Steps,
) -> Any:
  """Runs step(carry, j, row j of coefficients) -> carry over all rows.

  Args:
    step: the function.
    carry: its first argument at the start.
    coefficients: {name: [N]}, or `Steps`.
  """
  dtype = jax.tree.leaves(carry)[0].dtype
  if _ON_HOST.get():
    return _loop(step, carry, coefficients, dtype)
  if isinstance(coefficients, Steps):
    rows = {k: jnp.asarray(v, dtype) for k, v in coefficients.rows.items()}
    return jax.lax.fori_loop(
      0,
      coefficients.count,
      lambda j, carry: step(carry, j, {k: v[j] for k, v in rows.items()}),
      carry,
    )
  rows = {k: jnp.asarray(v, dtype) for k, v in coefficients.items()}
  num_steps = len(rows['logsnr'])

  def body(carry, row):
    j, c = row
    return step(carry, j, c), None

  j = jnp.arange(num_steps, dtype=jnp.int32)
  carry, _ = jax.lax.scan(body, carry, (j, rows))
  return carry


def _loop(step, carry, coefficients, dtype):
  """Runs the steps one after the other, see `on_host`."""
  if isinstance(coefficients, Steps):
    count, rows = int(coefficients.count), coefficients.rows
  else:
    count, rows = len(coefficients['logsnr']), coefficients
  rows = {k: np.asarray(v, dtype) for k, v in rows.items()}
  for j in range(count):
    carry = step(carry, j, {k: v[j] for k, v in rows.items()})
  return carry


def choose(
  is_first: jax.Array,
  first: Callable[[], jax.Array],
  second: Callable[[], jax.Array],
) -> jax.Array:
  """Returns first() or second(), within the loop of `scan`.

  Args:
    is_first: bool [].
    first, second: functions of which one is run.
  """
  if _ON_HOST.get():
    return first() if is_first else second()
  return jax.lax.cond(is_first, first, second)


def checked(logsnrs: np.ndarray) -> np.ndarray:
  """Returns the grid in float64; raises ValueError unless it increases."""
  grid = np.asarray(logsnrs, np.float64)
  if grid.ndim != 1 or len(grid) < 2:
    raise ValueError(
      f'logsnrs has shape {grid.shape}; give [N + 1] levels, N >= 1.'
    )
  if not (np.isfinite(grid[:-1]).all() and (np.diff(grid) > 0).all()):
    raise ValueError(
      'logsnrs must be finite and strictly increasing, except that the last '
      f'may be +inf; they run from {grid[0]} to {grid[-1]}.'
    )
  return grid


def per_example(logsnr: jax.Array, x_t: jax.Array) -> jax.Array:
  """Repeats a level for every example: [] -> [B]."""
  return jnp.broadcast_to(logsnr, x_t.shape[:1])


def check_noise(name: str, option: str, value: float, noise: Any) -> None:
  """Raises ValueError if a sampler is to add noise that it is not given."""
  if value and noise is None:
    raise ValueError(
      f'{name} with {option} = {value} needs noise; give it, or {option}=0.'
    )


def _rows(run: Sampler, logsnrs: np.ndarray) -> dict[str, np.ndarray]:
  options = {}
  if isinstance(run, functools.partial):
    run, options = run.func, run.keywords
  return _TABLES[run](logsnrs, **options)
