"""The optimizer: Adam, a learning rate over time, clipping of the gradient.

g <- g min(1, clip_norm / |g|)                   g: of the global batch's mean
params <- params - learning_rate(step) Adam(g)
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

KINDS = ('adam', 'adamw')
DECAYS = ('constant', 'cosine')


class Optimizer(NamedTuple):
  """An optax transformation that also knows its learning rate.

  The first two fields are optax.GradientTransformation's.
  """

  init: Callable
  update: Callable
  learning_rate: Callable  # step (from 0) -> []


def make_optimizer(
  *,
  learning_rate,
  warmup_steps=0,
  kind='adam',
  b1=0.9,
  b2=0.999,
  eps=1e-8,
  clip_norm=None,
  weight_decay=0.0,
  decay='constant',
  num_steps=None,
):
  """Builds the optimizer from the fields of its config section.

  Args:
    learning_rate: after warm-up.
    warmup_steps: number of updates over which the rate grows linearly; update
      number k (from 1) uses k / warmup_steps of it.
    kind: 'adam', or 'adamw' (decoupled weight decay).
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    clip_norm: largest global norm of a gradient, or None.
    weight_decay: of 'adamw'; kernels only (arrays of two axes or more).
    decay: 'constant' or 'cosine' (to zero at num_steps).
    num_steps: length of the run; needed by 'cosine'.

  Returns:
    Optimizer, moments in float32.

  Raises:
    ValueError: naming the field that does not fit.
  """
  if kind not in KINDS:
    raise ValueError(f'optimizer.kind is {kind!r}; known kinds are {KINDS}.')
  if weight_decay and kind != 'adamw':
    raise ValueError(
      f'optimizer.weight_decay is {weight_decay}, but {kind!r} has none; use '
      "kind='adamw'."
    )
  if clip_norm is not None and not clip_norm > 0:
    raise ValueError(
      f'optimizer.clip_norm is {clip_norm}; use a positive number, or None '
      'for no clipping.'
    )
  rate = make_learning_rate(
    learning_rate=learning_rate,
    warmup_steps=warmup_steps,
    decay=decay,
    num_steps=num_steps,
  )
  parts = [optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=jnp.float32)]
  if clip_norm is not None:
    parts.insert(0, optax.clip_by_global_norm(clip_norm))
  if weight_decay:
    parts.append(optax.add_decayed_weights(weight_decay, mask=_kernels))
  parts.append(optax.scale_by_learning_rate(rate))
  tx = optax.chain(*parts)
  return Optimizer(tx.init, tx.update, rate)


def _kernels(params):
  return jax.tree.map(lambda p: p.ndim > 1, params)


def make_learning_rate(*, learning_rate, warmup_steps, decay, num_steps):
  """-> function from the number of updates made so far to the rate."""
  if decay not in DECAYS:
    raise ValueError(f'optimizer.decay is {decay!r}; known are {DECAYS}.')
  if warmup_steps < 0:
    raise ValueError(
      f'optimizer.warmup_steps is {warmup_steps}; use 0 or more.'
    )
  if decay == 'cosine' and (num_steps is None or num_steps <= warmup_steps):
    raise ValueError(
      f"optimizer.decay is 'cosine' with warmup_steps={warmup_steps}; it "
      f'needs a longer num_steps, got {num_steps}.'
    )

  def rate(step):
    step = jnp.asarray(step, jnp.float32)
    scale = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))
    if decay == 'cosine':
      progress = (step - warmup_steps) / (num_steps - warmup_steps)
      cosine = jnp.cos(math.pi * jnp.clip(progress, 0.0, 1.0))
      scale = scale * 0.5 * (1 + cosine)
    return learning_rate * scale

  return rate
