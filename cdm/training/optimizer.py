"""Builds the optimizer: Adam, Adafactor, RMSProp or SGD, a schedule, clipping.

With g the gradient of the mean loss over the global batch:

  g <- g min(1, clip_norm / |g|)
  params <- params - factor learning_rate(step) Adam(g)

where factor is 1 unless `group_rates` says otherwise. SGD, with momentum m and
weight decay w (kernels only, before the momentum):

  g <- g + w params;  v <- m v + g
  params <- params - learning_rate(step) (g + m v if Nesterov else v)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cdm.training import bfloat16_adam, group_rates, rmsprop
from cdm.training.group_rates import GroupRates
from cdm.training.learning_rate import make_learning_rate
from cdm.training.optimizer_values import check

KINDS = ('adam', 'adamw')
MOMENT_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class Optimizer(NamedTuple):
  """An optax transformation that also knows its learning rate.

  The first two fields are optax.GradientTransformation's.

  Attributes:
    learning_rate: number of updates made, [] -> rate of the next one, [].
    is_clipped: gradient -> whether it is clipped, [] bool; None if no gradient
      is.
    groups: ((regex, factor), ...), see `group_rates`.
    skip_nonfinite: how many steps in a row are skipped because of a gradient
      that is not finite; 0 skips none.
    project: parameters after an update -> what takes their place, see
      `Method.project`; None changes nothing.
  """

  init: Callable
  update: Callable
  learning_rate: Callable[[jax.Array | int], jax.Array]
  is_clipped: Callable[[Any], jax.Array] | None = None
  groups: GroupRates = ()
  skip_nonfinite: int = 0
  project: Callable[[Any], Any] | None = None


# The optimizer of a method that is fitted without gradients.
NOTHING = Optimizer(
  init=lambda params: (),
  update=lambda updates, state, params=None: (updates, state),
  learning_rate=lambda count: jnp.zeros((), jnp.float32),
)


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
    moment_dtype: 'float32', or 'bfloat16', which halves the memory of both
      moments; see `bfloat16_adam`.
    clip_norm: largest global norm of a gradient, or None.
    weight_decay: for 'adamw'; decays kernels only (arrays of two axes or
      more).
    decay: 'constant'; 'cosine' or 'linear' (to zero at the end of the run);
      'inverse_sqrt'; or 'step'. See `learning_rate`.
    decay_at: for 'step', the increasing numbers of updates after each of which
      the rate is multiplied by decay_factor; () for the others.
    decay_factor: in (0, 1).
    decay_from: for 'inverse_sqrt', the number of updates after which the rate
      falls; 0 stands for warmup_steps.
    group_rates: ((regex, factor), ...) over the names of parameters: factors of
      the learning rate, 0 to freeze; see `group_rates`.
    skip_nonfinite: how many steps in a row may be skipped because their loss
      or gradient is not finite; one more is divergence. 0 skips none.
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
  decay_from: int = 0
  moment_dtype: str = 'float32'
  group_rates: Sequence = ()
  skip_nonfinite: int = 0


class AdafactorOptions(NamedTuple):
  """The `optimizer` section of a config whose kind is 'adafactor'.

  It keeps the mean square of the gradient per row and per column of a kernel,
  not per element (Shazeer and Stern, arXiv 1804.04235, whose sections are cited
  below). Two things differ from `optax.adafactor`: the
  momentum comes before the learning rate, and the weight decay is multiplied by
  it.

  Attributes:
    learning_rate, warmup_steps, clip_norm, decay, decay_at, decay_factor,
      decay_from, group_rates, skip_nonfinite: see `AdamOptions`.
    kind: 'adafactor'.
    b2_exponent: the decay of the mean squares is 1 - t^-b2_exponent at the
      t-th update, sec. 7.2.
    min_size_to_factor: an array is factored over its two longest axes if both
      have at least this length.
    update_clip: largest root mean square of the update of one array before the
      learning rate, sec. 6; None does not clip.
    scale_by_parameter: whether the rate is relative to the root mean square of
      the array (at least 1e-3), sec. 8.
    eps: added to the squared gradient.
    momentum: decay of the first moment, in [0, 1); 0 keeps none.
    moment_dtype: of the first moment, 'float32' or 'bfloat16'.
    weight_decay: decoupled, of kernels only (arrays of two axes or more).
  """

  learning_rate: float
  kind: str = 'adafactor'
  warmup_steps: int = 0
  b2_exponent: float = 0.8
  min_size_to_factor: int = 128
  update_clip: float | None = 1.0
  scale_by_parameter: bool = True
  eps: float = 1e-30
  momentum: float = 0.0
  moment_dtype: str = 'float32'
  weight_decay: float = 0.0
  clip_norm: float | None = None
  decay: str = 'constant'
  decay_at: Sequence[int] = ()
  decay_factor: float = 0.1
  decay_from: int = 0
  group_rates: Sequence = ()
  skip_nonfinite: int = 0


class SgdOptions(NamedTuple):
  """The `optimizer` section of a config whose kind is 'sgd'.

  Attributes:
    learning_rate, warmup_steps, clip_norm: see `AdamOptions`.
    kind: 'sgd'.
    momentum: in [0, 1); the velocity is not dampened.
    nesterov: whether the update looks ahead along the velocity.
    weight_decay: added to the gradient of kernels (arrays of two axes or
      more) before the momentum, as L2 regularisation is.
    decay, decay_at, decay_factor, decay_from, group_rates, skip_nonfinite: see
      `AdamOptions`.
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
  decay_from: int = 0
  group_rates: Sequence = ()
  skip_nonfinite: int = 0


def make_optimizer(
  options: AdamOptions, num_steps: int | None = None
) -> Optimizer:
  """Builds Adam.

  Args:
    options: the config section.
    num_steps: length of the run; the decays 'cosine' and 'linear' need it.

  Returns:
    Optimizer.

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
  check('weight_decay', weight_decay, 'at least 0')
  check('b1', options.b1, 'at least 0 and below 1')
  check('b2', options.b2, 'at least 0 and below 1')
  check('eps', options.eps, 'above 0')
  rate = make_learning_rate(options, num_steps)
  dtype = _moment_dtype(options.moment_dtype)
  parts = _clipping(options.clip_norm)
  b1, b2, eps = options.b1, options.b2, options.eps
  if dtype == jnp.bfloat16:
    parts.append(bfloat16_adam.scale_by_bfloat16_adam(b1=b1, b2=b2, eps=eps))
  else:
    parts.append(optax.scale_by_adam(b1, b2, eps, mu_dtype=jnp.float32))
  if weight_decay:
    parts.append(optax.add_decayed_weights(weight_decay, mask=_kernels))
  return _optimizer(options, parts, rate)


def make_adafactor(
  options: AdafactorOptions, num_steps: int | None = None
) -> Optimizer:
  """Builds Adafactor.

  Args:
    options: the config section.
    num_steps: length of the run; the decays 'cosine' and 'linear' need it.

  Returns:
    Optimizer, whose mean squares have the dtype of the parameters.

  Raises:
    ValueError: if an option does not fit; it is named.
  """
  if options.kind != 'adafactor':
    raise ValueError(
      f'optimizer.kind is {options.kind!r}; make_adafactor builds '
      "'adafactor' only."
    )
  check('b2_exponent', options.b2_exponent, 'above 0 and at most 1')
  check('min_size_to_factor', options.min_size_to_factor, 'above 0')
  check('eps', options.eps, 'above 0')
  check('momentum', options.momentum, 'at least 0 and below 1')
  check('weight_decay', options.weight_decay, 'at least 0')
  rate = make_learning_rate(options, num_steps)
  dtype = _moment_dtype(options.moment_dtype)
  parts = _clipping(options.clip_norm)
  parts.append(
    optax.scale_by_factored_rms(
      decay_rate=options.b2_exponent,
      min_dim_size_to_factor=options.min_size_to_factor,
      epsilon=options.eps,
    )
  )
  if options.update_clip is not None:
    check('update_clip', options.update_clip, 'above 0')
    parts.append(optax.clip_by_block_rms(options.update_clip))
  if options.scale_by_parameter:
    parts.append(optax.scale_by_param_block_rms())
  if options.momentum:
    parts.append(
      optax.ema(options.momentum, debias=False, accumulator_dtype=dtype)
    )
  if options.weight_decay:
    parts.append(optax.add_decayed_weights(options.weight_decay, mask=_kernels))
  return _optimizer(options, parts, rate)


def make_sgd(options: SgdOptions, num_steps: int | None = None) -> Optimizer:
  """Builds SGD with momentum.

  Args:
    options: the config section.
    num_steps: length of the run; the decays 'cosine' and 'linear' need it.

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
  check('momentum', momentum, 'at least 0 and below 1')
  if nesterov and not momentum:
    raise ValueError(
      'optimizer.nesterov looks ahead along the momentum, but '
      'optimizer.momentum is 0; use '
      '--config.optimizer.nesterov=False.'
    )
  check('weight_decay', options.weight_decay, 'at least 0')
  rate = make_learning_rate(options, num_steps)
  parts = _clipping(options.clip_norm)
  if options.weight_decay:
    parts.append(optax.add_decayed_weights(options.weight_decay, mask=_kernels))
  if momentum:
    parts.append(
      optax.trace(momentum, nesterov=nesterov, accumulator_dtype=jnp.float32)
    )
  return _optimizer(options, parts, rate)


def make_rmsprop(
  options: rmsprop.RmspropOptions, num_steps: int | None = None
) -> Optimizer:
  """Builds RMSProp with momentum.

  Args:
    options: the config section.
    num_steps: length of the run; the decays 'cosine' and 'linear' need it.

  Returns:
    Optimizer with its mean squares and its velocity in float32.

  Raises:
    ValueError: if an option does not fit; it is named.
  """
  if options.kind != 'rmsprop':
    raise ValueError(
      f"optimizer.kind is {options.kind!r}; make_rmsprop builds 'rmsprop' only."
    )
  rate = make_learning_rate(options, num_steps)
  parts = [*_clipping(options.clip_norm), rmsprop.scale_by_rmsprop(options)]
  return _optimizer(options, parts, rate)


def skipped(before: Any, after: Any, *, is_kept: jax.Array) -> Any:
  """Chooses between two optimizer states, as a step that may be skipped does.

  The number of steps that the learning rate depends on counts on, so that a
  schedule ends at the end of the run; all else stays as before.

  Args:
    before: the optimizer state before the update.
    after: the state after it.
    is_kept: [] bool, False if the step is skipped.
  """

  def choose(old, new):
    if isinstance(new, optax.ScaleByScheduleState):
      return new
    return jax.tree.map(lambda a, b: jnp.where(is_kept, b, a), old, new)

  return jax.tree.map(
    choose,
    before,
    after,
    is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState),
  )


def _clipping(clip_norm):
  if clip_norm is None:
    return []
  check('clip_norm', clip_norm, 'above 0')
  return [optax.clip_by_global_norm(clip_norm)]


def _moment_dtype(name):
  if name not in MOMENT_DTYPES:
    raise ValueError(
      f'optimizer.moment_dtype is {name!r}; known are {tuple(MOMENT_DTYPES)}.'
    )
  return MOMENT_DTYPES[name]


def _optimizer(options, parts, rate):
  """Adds the learning rate and the groups to the parts of an update."""
  check('skip_nonfinite', options.skip_nonfinite, 'at least 0')
  tx = optax.chain(*parts, optax.scale_by_learning_rate(rate))
  groups = group_rates.read(options.group_rates)

  # The groups are applied around the chain, not in it, so that the tree of its
  # state does not depend on them: a run may freeze parameters halfway.
  def update(grads, state, params):
    grads = group_rates.without_frozen(grads, groups)
    updates, state = tx.update(grads, state, params)
    return group_rates.scaled(updates, groups), state

  def is_clipped(grads):
    grads = group_rates.without_frozen(grads, groups)
    return optax.tree.norm(grads) > options.clip_norm

  return Optimizer(
    tx.init,
    update if groups else tx.update,
    rate,
    is_clipped=None if options.clip_norm is None else is_clipped,
    groups=groups,
    skip_nonfinite=options.skip_nonfinite,
  )


def _kernels(params):
  return jax.tree.map(lambda p: p.ndim > 1, params)
