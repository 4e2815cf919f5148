"""Defines the training state, the one value that a run needs to continue.

The state is first described by its shapes (`shapes`), then given its shardings
(`partitioning.with_shardings`), and only then made (`make_state`), each device
computing its own part.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from cdm.training import ema
from cdm.training.optimizer import Optimizer


class TrainState(struct.PyTreeNode):
  """Everything that an update reads and writes."""

  step: jax.Array  # [] int32, number of updates made
  params: Any
  ema_params: Any  # float32
  opt_state: Any
  key: jax.Array  # [] typed key; it never changes, as the step is folded in


class Weights(NamedTuple):
  """Weights that a run starts from, instead of random ones.

  Attributes:
    arrays: tree of arrays that were read.
    merge: (random parameters, arrays) -> the parameters to start from, traced
      under jit. What it does not use of the random ones is never computed.
  """

  arrays: Any
  merge: Callable[[Any, Any], Any]


def _make(init, tx, merge, key, arrays):
  init_key, run_key = jax.random.split(key)
  params = init(init_key)
  if merge is not None:
    params = merge(params, arrays)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    ema_params=ema.start(params),
    opt_state=tx.init(params),
    key=run_key,
  )


def shapes(
  init: Callable[[jax.Array], Any], tx: Optimizer, *, key: jax.Array
) -> TrainState:
  """Describes the state by its shapes and dtypes.

  Args:
    init: key -> params.
    tx: the optimizer.
    key: typed key; its value does not matter.

  Returns:
    TrainState of ShapeDtypeStructs without shardings.
  """
  return jax.eval_shape(lambda k: _make(init, tx, None, k, None), key)


def shardings_of(abstract: TrainState) -> TrainState:
  """Returns the shardings of an abstract or real state, as the same tree."""
  return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def abstract_of(state: TrainState) -> TrainState:
  """Describes a state by its shapes, dtypes and shardings."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=leaf.sharding
    ),
    state,
  )


def make_state(
  init: Callable[[jax.Array], Any],
  tx: Optimizer,
  read_weights: Callable[[], Weights] | None = None,
  *,
  key: jax.Array,
  abstract: TrainState,
) -> TrainState:
  """Makes the state of a new run, sharded over the mesh from the start.

  The parameters depend on the key only, not on the mesh. Each device computes
  its own part, so no device or host holds the whole.

  Args:
    init: key -> params.
    tx: the optimizer.
    read_weights: reads what the parameters and their average start from; by
      default the random parameters of `init`.
    key: typed key of the run.
    abstract: what `shapes` returns, with the shardings that
      `partitioning.with_shardings` adds.

  Returns:
    TrainState at step 0.
  """
  make = jax.jit(
    _make, static_argnums=(0, 1, 2), out_shardings=shardings_of(abstract)
  )
  if read_weights is None:
    return make(init, tx, None, key, None)
  weights = read_weights()  # The state will have copies of them.
  return make(init, tx, weights.merge, key, weights.arrays)
