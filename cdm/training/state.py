"""What a run needs to continue, as one value.

Shapes before arrays: the state is first described (`shapes`), then
placed, and only then made, each device computing its own part.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from cdm.training import ema


class TrainState(struct.PyTreeNode):
  """Everything that an update reads and writes."""

  step: jax.Array  # [] int32, number of updates made
  params: Any
  ema_params: Any  # float32
  opt_state: Any
  key: jax.Array  # [] typed key; never changes, step is folded in


def _make(init, tx, key):
  init_key, run_key = jax.random.split(key)
  params = init(init_key)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    ema_params=ema.start(params),
    opt_state=tx.init(params),
    key=run_key,
  )


def shapes(init, tx, *, key):
  """Describes the state: TrainState of ShapeDtypeStructs, without a place.

  Args:
    init: key -> params.
    tx: the optimizer.
    key: typed key; its value does not matter.
  """
  return jax.eval_shape(lambda k: _make(init, tx, k), key)


def shardings_of(abstract):
  """-> the shardings of an abstract or real state, as the same tree."""
  return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def make_state(init, tx, *, key, abstract):
  """Makes the state of a new run, already in its place on the mesh.

  The parameters depend on the key only, not on the mesh. Each device computes
  its own part, so no device or host holds the whole.

  Args:
    init: key -> params.
    tx: the optimizer.
    key: typed key of the run.
    abstract: `shapes`, placed by `partitioning.placed`.

  Returns:
    TrainState at step 0.
  """
  make = jax.jit(
    _make, static_argnums=(0, 1), out_shardings=shardings_of(abstract)
  )
  return make(init, tx, key)
