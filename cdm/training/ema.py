"""Keeps an exponential moving average (EMA) of the parameters, in float32.

  ema <- decay_t * ema + (1 - decay_t) * params
  decay_t = min(decay, (1 + t) / (10 + t)) while warming up

  ema <- beta_t ema + (1 - beta_t) params             power-function, [EDM2]
  beta_t = (1 - 1 / t)^(gamma + 1),  t = number of updates made

The average is part of the training state: it starts as an exact copy of the
parameters, is saved and restored with the state, and samples are drawn from it.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


def start(params: Any) -> Any:
  """Returns an exact float32 copy of the parameters, as the same tree."""
  return jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)


def decay_at(step: jax.Array | int, *, decay: float, warmup: bool) -> jax.Array:
  """Returns decay_t, [] float32, of the update with index `step` (from 0).

  Without warm-up, a decay of 0.9999 keeps the random initial values in the
  average for tens of thousands of steps.
  """
  if not warmup:
    return jnp.float32(decay)
  step = jnp.asarray(step, jnp.float32)
  return jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))


def decay_of(half_life_images: float, *, batch_size: int) -> float:
  """Returns the decay per step whose half-life is a number of images.

  decay = 0.5 ^ (batch_size / half_life_images), as the code of EDM (arXiv
  2206.00364) has it.
  """
  return 0.5 ** (batch_size / half_life_images)


def update(
  ema_params: Any,
  params: Any,
  step: jax.Array | int,
  *,
  decay: float,
  warmup: bool,
) -> Any:
  """Updates the average once.

  Args:
    ema_params: tree of float32 arrays.
    params: the same tree, after the optimizer's update.
    step: [] number of updates made before this one.
    decay: the decay, in [0, 1].
    warmup: whether the decay grows from 1/10 as (1 + step) / (10 + step).

  Returns:
    tree of float32 arrays.
  """
  rate = 1 - decay_at(step, decay=decay, warmup=warmup)
  # The formula is e + rate (p - e), not decay e + rate p, so that parameters
  # that do not move leave the average exactly where it is.
  return jax.tree.map(
    lambda e, p: e + rate * (p.astype(jnp.float32) - e), ema_params, params
  )


class Average(Protocol):
  """An average that a run keeps beside the main one."""

  def update(self, average: Any, params: Any, step: jax.Array | int) -> Any:
    """Updates it once; see the function `update` for the arguments."""


class Exponential(NamedTuple):
  """The exponential average; for the fields see the function `update`."""

  decay: float
  warmup: bool

  def update(self, average: Any, params: Any, step: jax.Array | int) -> Any:
    """Updates it once."""
    return update(average, params, step, decay=self.decay, warmup=self.warmup)


class PowerFunction(NamedTuple):
  """The power-function average, whose width is a share of the run so far.

  Attributes:
    exponent: gamma, see `ops.power_function.exponent`.
  """

  exponent: float

  def update(self, average: Any, params: Any, step: jax.Array | int) -> Any:
    """Updates it once; at step 0 the parameters take the average's place."""
    t = jnp.asarray(step, jnp.float32) + 1
    # 1 - beta_t, which is 1e-5 and less late in a run, without the difference
    # of two numbers near 1 that float32 would round.
    rate = -jnp.expm1((self.exponent + 1) * jnp.log1p(-1 / t))
    return jax.tree.map(
      lambda e, p: e + rate * (p.astype(jnp.float32) - e), average, params
    )
