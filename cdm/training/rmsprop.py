"""RMSProp as TensorFlow has it, with momentum.

With decay b2 of the mean square s, and momentum m:

  s <- b2 s + (1 - b2) g^2;  v <- m v + g / sqrt(s + eps)
  params <- params - learning_rate(step) v

It is TensorFlow's RMSPropOptimizer, which papers of 2017 and 2018 trained with:
eps is inside the root, and the mean square starts at 1. differs: the momentum
comes before the learning rate, which only matters while that changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import optax

from cdm.training.optimizer_values import check


class RmspropOptions(NamedTuple):
  """The `optimizer` section of a config whose kind is 'rmsprop'.

  Attributes:
    learning_rate, warmup_steps, clip_norm: see `optimizer.AdamOptions`.
    kind: 'rmsprop'.
    b2: decay of the mean square of the gradient, TensorFlow's `decay`.
    momentum: in [0, 1); 0 keeps none.
    eps: added to the mean square.
    initial_scale: the mean square before the first update, at least 0.
    decay, decay_at, decay_factor, decay_from, group_rates, skip_nonfinite: see
      `optimizer.AdamOptions`.
  """

  learning_rate: float
  kind: str = 'rmsprop'
  warmup_steps: int = 0
  b2: float = 0.9
  momentum: float = 0.0
  eps: float = 1e-10
  initial_scale: float = 1.0
  clip_norm: float | None = None
  decay: str = 'constant'
  decay_at: Sequence[int] = ()
  decay_factor: float = 0.1
  decay_from: int = 0
  group_rates: Sequence = ()
  skip_nonfinite: int = 0


def scale_by_rmsprop(options: RmspropOptions) -> optax.GradientTransformation:
  """Returns the update before the learning rate.

  Its mean squares have the dtype of the parameters; its velocity is float32.

  Raises:
    ValueError: if an option does not fit; it is named.
  """
  check('b2', options.b2, 'at least 0 and below 1')
  check('momentum', options.momentum, 'at least 0 and below 1')
  check('eps', options.eps, 'above 0')
  check('initial_scale', options.initial_scale, 'at least 0')
  squares = optax.scale_by_rms(
    options.b2, options.eps, initial_scale=options.initial_scale
  )
  if not options.momentum:
    return squares
  velocity = optax.trace(options.momentum, accumulator_dtype=jnp.float32)
  return optax.chain(squares, velocity)
