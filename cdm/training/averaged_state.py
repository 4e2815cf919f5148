"""Adds averages of the parameters to a training state, whichever it is.

A run that keeps one average only has the state of its method, with no further
field, neither in memory nor in its checkpoints. Further averages are a field of
a class that is derived from that of the state.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from cdm.training.state import TrainState


def averages_of(state: TrainState) -> dict[str, Any]:
  """Returns the averages that a state has beside the main one.

  Returns:
    {key, see `average_names`: tree like ema_params}; {} if there are none.
  """
  return getattr(state, 'averages', {})


def add(state: TrainState, averages: dict[str, Any]) -> TrainState:
  """Returns a state with these averages besides; the state itself if none."""
  if not averages:
    return state
  return _averaged(type(state))(**_fields(state), averages=averages)


def described(state: TrainState, keys: Iterable[str]) -> TrainState:
  """Describes a state with averages, each like the main one and placed so.

  Args:
    state: TrainState of ShapeDtypeStructs without averages.
    keys: of the averages.
  """
  return add(state, dict.fromkeys(keys, state.ema_params))


def make(
  make_own: Callable[[TrainState], TrainState], abstract: TrainState
) -> TrainState:
  """Makes the state of a new run, whose averages start as the main one does.

  Args:
    make_own: makes it without averages, from its description without them.
    abstract: TrainState of ShapeDtypeStructs with shardings.
  """
  averages = averages_of(abstract)
  if not averages:
    return make_own(abstract)
  kind = type(abstract).__mro__[1]
  fields = _fields(abstract)
  del fields['averages']
  state = make_own(kind(**fields))
  copy = jax.jit(
    lambda tree: {key: jax.tree.map(jnp.copy, tree) for key in averages},
    out_shardings=jax.tree.map(lambda leaf: leaf.sharding, averages),
  )
  return add(state, copy(state.ema_params))


@functools.cache
def _averaged(kind):
  """Returns the class of states of a kind that have averages."""

  class AveragedState(kind):
    averages: Any = None  # {key: tree like ema_params}

  return AveragedState


def _fields(state):
  return {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
