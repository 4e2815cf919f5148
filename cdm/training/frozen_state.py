"""Defines the training state of a method that uses frozen parameters.

A student is trained with the parameters of its teacher, which no update
changes. They are a part of the state, because they then lie on the mesh as the
parameters do, are an argument of the step and no constant in it, and are saved:
a run goes on, bit for bit, where its teacher is gone. Of a state with Adam's
moments they are a fifth.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from cdm.training.optimizer import Optimizer
from cdm.training.state import TrainState, Weights, make_state, shapes


class FrozenState(TrainState):
  """A training state with parameters that an update reads and does not change.

  It is a class of its own so that the state of every other method has the
  arrays that it always had.
  """

  frozen: Any = None


def add(state: TrainState, frozen: Any) -> FrozenState:
  """Returns a state with these frozen parameters besides."""
  return FrozenState(**_fields(state), frozen=frozen)


def described(
  init: Callable[[jax.Array], Any],
  tx: Optimizer,
  init_frozen: Callable[[jax.Array], Any] | None,
  *,
  key: jax.Array,
) -> TrainState:
  """Describes the state of a method by its shapes and dtypes.

  Args:
    init, tx, key: see `state.shapes`.
    init_frozen: key -> frozen parameters; None if the method has none.

  Returns:
    TrainState or FrozenState of ShapeDtypeStructs without shardings.
  """
  state = shapes(init, tx, key=key)
  if init_frozen is None:
    return state
  return add(state, jax.eval_shape(init_frozen, key))


def make(
  init: Callable[[jax.Array], Any],
  tx: Optimizer,
  read_weights: Callable[[], Weights] | None = None,
  read_frozen: Callable[[Any], Any] | None = None,
  *,
  key: jax.Array,
  abstract: TrainState,
) -> TrainState:
  """Makes the state of a new run, see `state.make_state`.

  Args:
    init, tx, read_weights, key, abstract: see there.
    read_frozen: reads the frozen parameters, (shapes with shardings) -> arrays;
      None if the method has none.
  """
  if read_frozen is None:
    return make_state(init, tx, read_weights, key=key, abstract=abstract)
  assert isinstance(abstract, FrozenState)  # its method has such parameters
  own = TrainState(**_fields(abstract))
  state = make_state(init, tx, read_weights, key=key, abstract=own)
  return add(state, read_frozen(abstract.frozen))


class Placed(NamedTuple):
  """Frozen parameters, for a step to use.

  Attributes:
    params: tree of arrays.
    places: the same tree of NamedSharding.
  """

  params: Any
  places: Any


def placed(state: TrainState, shardings: Any) -> Placed | None:
  """Returns the frozen parameters of a state; None if it has none.

  Args:
    state: the state.
    shardings: the same tree of NamedSharding, or one for all of its arrays.
  """
  if not isinstance(state, FrozenState):
    return None
  places = getattr(shardings, 'frozen', None)
  if places is None:
    places = jax.tree.map(lambda _: shardings, state.frozen)
  return Placed(state.frozen, places)


def of(state: TrainState) -> dict[str, Any]:
  """Returns {'frozen': its frozen parameters}; {} if a state has none."""
  return {'frozen': state.frozen} if isinstance(state, FrozenState) else {}


def _fields(state):
  names = [field.name for field in dataclasses.fields(TrainState)]
  return {name: getattr(state, name) for name in names}
