"""Finds how a partition rule applies to the factored statistics of Adafactor.

Adafactor keeps, in place of an array of a parameter's shape, its means over one
of the two longest axes: `v_row` lacks the longest, `v_col` the second longest.
What it does not keep is an array of shape [1].
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

_NAME = re.compile(r'^opt_state/(?:.*/)?(v_row|v_col|v)/(.+)$')

Entry = TypeVar('Entry')


def entries(
  name: str,
  shape: Sequence[int],
  spec: tuple[Entry, ...],
  params: Mapping[str, tuple[int, ...]],
) -> tuple[Entry | None, ...]:
  """Returns the spec of an array, given the spec of a rule that matches it.

  Args:
    name: name of the array in the training state.
    shape: its shape.
    spec: an entry per axis of the parameter; missing ones are None.
    params: {name in the training state: shape} of the parameters.

  Returns:
    For a factored statistic the entries of the axes that it has; for any other
    array the spec itself.
  """
  match = _NAME.match(name)
  whole = params.get(f'params/{match[2]}') if match else None
  if match is None or whole is None or tuple(shape) == whole:
    return spec
  if tuple(shape) == (1,):
    return ()
  order = np.argsort(whole)  # as optax chooses the axes
  lacking = int(order[-1] if match[1] == 'v_row' else order[-2])
  if whole[:lacking] + whole[lacking + 1 :] != tuple(shape):
    return spec
  return spec[:lacking] + spec[lacking + 1 :]
