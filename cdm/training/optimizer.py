"""Builds the optimizer: Adam or SGD, a learning-rate schedule, clipping.

With g the gradient of the mean loss over the global batch:

  g <- g min(1, clip_norm / |g|)
  params <- params - learning_rate(step) Adam(g)

SGD, with momentum m and weight decay w (kernels only, before the momentum):

  g <- g + w params;  v <- m v + g
  params <- params - learning_rate(step) (g + m v if Nesterov else v)
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

KINDS = ('adam', 'adamw')
DECAYS = ('constant', 'cosine', 'step')


class Optimizer(NamedTuple):
  """An optax transformation that also knows its learning rate.

  The first two fields are optax.GradientTransformation's.
  """

  init: Callable
  update: Callable
  learning_rate: Callable[[jax.Array | int], jax.Array]  # step from 0 -> []


class AdamOptions(NamedTuple):
  """The `optimizer` section of a config whose kind is 'adam' or 'adamw'.

  Attributes:
    learning_rate: the rate after warm-up.
    warmup_steps: number of updates over which the rate grows linearly; the
      k-th update (from 1) uses k / warmup_steps of the rate.
    kind: 'adam', or 'adamw' (decoupled weight decay).
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    clip_norm: largest global norm of a gradient, or None.
    weight_decay: for 'adamw'; decays kernels only (arrays of two axes or
      more).
    decay: 'constant', 'cosine' (to zero at the end of the run) or 'step'.
    decay_at: for 'step', the increasing numbers of updates after each of which
      the rate is multiplied by decay_factor; () for the others.
    decay_factor: in (0, 1).
  """

  learning_rate: float
  warmup_steps: int = 0
  kind: str = 'adam'
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  clip_norm: float | None = None
  weight_decay: float = 0.0
  decay: str = 'constant'
  decay_at: Sequence[int] = ()
  decay_factor: float = 0.1


class SgdOptions(NamedTuple):
  """The `optimizer` section of a config whose kind is 'sgd'.

  Attributes:
    learning_rate, warmup_steps, clip_norm: see `AdamOptions`.
    kind: 'sgd'.
    momentum: in [0, 1); the velocity is not dampened.
    nesterov: whether the update looks ahead along the velocity.
    weight_decay: added to the gradient of kernels (arrays of two axes or
      more) before the momentum, as L2 regularisation is.
    decay, decay_at, decay_factor: see `AdamOptions`.
  """

  learning_rate: float
  kind: str = 'sgd'
  warmup_steps: int = 0
  momentum: float = 0.9
  nesterov: bool = True
  weight_decay: float = 0.0
  clip_norm: float | None = None
  decay: str = 'constant'
  decay_at: Sequence[int] = ()
  decay_factor: float = 0.1


def make_optimizer(
  options: AdamOptions, num_steps: int | None = None
) -> Optimizer:
  """Builds Adam.

  Args:
    options: the config section.
    num_steps: length of the run; needed by decay 'cosine'.

  Returns:
    Optimizer with moments in float32.

  Raises:
    ValueError: if an option does not fit; it is named.
  """
  kind, weight_decay = options.kind, options.weight_decay
  if kind not in KINDS:
    raise ValueError(f'optimizer.kind is {kind!r}; known kinds are {KINDS}.')
  if weight_decay and kind != 'adamw':
    raise ValueError(
      f'optimizer.weight_decay is {weight_decay}, but {kind!r} decays no '
      'weights; use --config.optimizer.kind=adamw.'
    )
  _check('weight_decay', weight_decay, 'at least 0')
  _check('b1', options.b1, 'at least 0 and below 1')
  _check('b2', options.b2, 'at least 0 and below 1')
  _check('eps', options.eps, 'above 0')
  rate = make_learning_rate(options, num_steps)
  parts = _clipping(options.clip_norm)
  parts.append(
    optax.scale_by_adam(
      b1=options.b1, b2=options.b2, eps=options.eps, mu_dtype=jnp.float32
    )
  )
  if weight_decay:
    parts.append(optax.add_decayed_weights(weight_decay, mask=_kernels))
  return _optimizer(parts, rate)


def make_sgd(options: SgdOptions, num_steps: int | None = None) -> Optimizer:
  """Builds SGD with momentum.

  Args:
    options: the config section.
    num_steps: length of the run; needed by decay 'cosine'.

  Returns:
    Optimizer with its velocity in float32.

  Raises:
    ValueError: if an option does not fit; it is named.
  """
  momentum, nesterov = options.momentum, options.nesterov
  if options.kind != 'sgd':
    raise ValueError(
      f"optimizer.kind is {options.kind!r}; make_sgd builds 'sgd' only."
    )
  _check('momentum', momentum, 'at least 0 and below 1')
  if nesterov and not momentum:
    raise ValueError(
      'optimizer.nesterov looks ahead along the momentum, but '
      'optimizer.momentum is 0; use '
      '--config.optimizer.nesterov=False.'
    )
  _check('weight_decay', options.weight_decay, 'at least 0')
  rate = make_learning_rate(options, num_steps)
  parts = _clipping(options.clip_norm)
  if options.weight_decay:
    parts.append(optax.add_decayed_weights(options.weight_decay, mask=_kernels))
  if momentum:
    parts.append(
      optax.trace(momentum, nesterov=nesterov, accumulator_dtype=jnp.float32)
    )
  return _optimizer(parts, rate)


def _clipping(clip_norm):
  if clip_norm is None:
    return []
  _check('clip_norm', clip_norm, 'above 0')
  return [optax.clip_by_global_norm(clip_norm)]


# Why a value that no run can mean is refused, not trained with.
_REASONS = {
  'learning_rate': 'a negative rate climbs the loss, and 0 learns nothing',
  'weight_decay': 'a negative one makes the parameters grow',
  'b1': 'it weighs the past gradients',
  'b2': 'it weighs the past squared gradients',
  'eps': 'it keeps the step finite where the gradient is 0',
  'momentum': 'at 1 the velocity never fades',
  'clip_norm': 'it is the largest norm of a gradient; None does not clip',
}
_RANGES = {
  'above 0': lambda x: x > 0,
  'at least 0': lambda x: x >= 0,
  'at least 0 and below 1': lambda x: 0 <= x < 1,
}


def _check(key, value, limits):
  """Raises ValueError unless a value is a finite number within limits."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not (is_number and math.isfinite(value) and _RANGES[limits](value)):
    raise ValueError(
      f'config.optimizer.{key} is {value!r}; it must be finite and {limits}: '
      f'{_REASONS[key]}. Set it with --config.optimizer.{key}=NUMBER.'
    )


def _optimizer(parts, rate):
  tx = optax.chain(*parts, optax.scale_by_learning_rate(rate))
  return Optimizer(tx.init, tx.update, rate)


def _kernels(params):
  return jax.tree.map(lambda p: p.ndim > 1, params)


def make_learning_rate(
  options: AdamOptions | SgdOptions, num_steps: int | None
) -> Callable[[jax.Array | int], jax.Array]:
  """Builds the learning-rate schedule.

  Args:
    options: the config section.
    num_steps: length of the run; needed by decay 'cosine'.

  Returns:
    Function from the number of updates made so far, [], to the rate of the
    next one, [] float32.

  Raises:
    ValueError: if an option does not fit; it is named.
  """
  warmup_steps, decay = options.warmup_steps, options.decay
  decay_at, decay_factor = options.decay_at, options.decay_factor
  _check('learning_rate', options.learning_rate, 'above 0')
  if decay not in DECAYS:
    raise ValueError(f'optimizer.decay is {decay!r}; known are {DECAYS}.')
  if warmup_steps < 0:
    raise ValueError(
      f'optimizer.warmup_steps is {warmup_steps}; use 0 or more.'
    )
  if decay == 'cosine' and (num_steps is None or num_steps <= warmup_steps):
    raise ValueError(
      f"optimizer.decay is 'cosine' with warmup_steps={warmup_steps}, which "
      f'needs a larger num_steps than {num_steps}.'
    )
  increasing = all(a < b for a, b in itertools.pairwise((0, *decay_at)))
  if bool(decay_at) != (decay == 'step') or not increasing:
    raise ValueError(
      f'optimizer.decay_at is {tuple(decay_at)} with decay={decay!r}; give '
      "increasing steps for decay='step', and () for other kinds of decay."
    )
  if not 0.0 < decay_factor < 1.0:
    raise ValueError(
      f'optimizer.decay_factor is {decay_factor}; it must be above 0 and below '
      '1.'
    )

  def rate(step):
    step = jnp.asarray(step, jnp.float32)
    scale = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))
    if decay == 'cosine':
      assert num_steps is not None  # checked above
      progress = (step - warmup_steps) / (num_steps - warmup_steps)
      cosine = jnp.cos(math.pi * jnp.clip(progress, 0.0, 1.0))
      scale = scale * 0.5 * (1 + cosine)
    for at in decay_at:
      scale = jnp.where(step >= at, scale * decay_factor, scale)
    return options.learning_rate * scale

  return rate
