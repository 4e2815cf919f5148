"""Gives groups of parameters their own factor of the learning rate.

A group is a regular expression over the names of parameters, such as
'down_0/conv1/kernel'. The first expression that is found in a name decides; a
parameter that none matches has the factor 1. A factor of 0 freezes a group: its
gradient counts as 0, also where the norm of the gradient is clipped.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cdm.distributed import partitioning

GroupRates = tuple[tuple[str, float], ...]


def read(given: Iterable[Any]) -> GroupRates:
  """Returns the groups of a config as tuples, after checking their form.

  Args:
    given: ((regex, factor), ...); lists are accepted too.

  Raises:
    ValueError: a group has another form.
  """
  checked = []
  for group in given:
    if not _is_group(group):
      raise ValueError(
        f'config.optimizer.group_rates has {group!r}; a group is (regex over '
        'the names of parameters, factor of at least 0), e.g. '
        "(('^embed', 0.1),)."
      )
    regex, factor = group
    try:
      re.compile(regex)
    except re.error as error:
      raise ValueError(
        f'config.optimizer.group_rates has {regex!r}, which is not a regular '
        f'expression: {error}.'
      ) from None
    checked.append((regex, float(factor)))
  return tuple(checked)


def factors(rates: GroupRates, params: Any) -> Any:
  """Returns the factor of every parameter, as the same tree of floats."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: _factor(rates, partitioning.parameter_name(path)), params
  )


def without_frozen(tree: Any, rates: GroupRates) -> Any:
  """Returns a gradient in which frozen parameters have exactly 0."""
  return jax.tree.map(
    lambda x, factor: x if factor else jnp.zeros_like(x),
    tree,
    factors(rates, tree),
  )


def scaled(tree: Any, rates: GroupRates) -> Any:
  """Returns an update times the factors; of frozen parameters exactly 0."""
  return jax.tree.map(
    lambda x, factor: x * factor if factor else jnp.zeros_like(x),
    tree,
    factors(rates, tree),
  )


def but_frozen(
  project: Callable[[Any], Any] | None, rates: GroupRates
) -> Callable[[Any], Any] | None:
  """Returns a projection of parameters that leaves frozen ones as they are.

  Args:
    project: see `optimizer.Optimizer`.
    rates: the groups.
  """
  if project is None or not rates:
    return project

  def project_others(params):
    return jax.tree.map(
      lambda factor, before, after: after if factor else before,
      *(factors(rates, params), params, project(params)),
    )

  return project_others


def summary(rates: GroupRates, params: Any) -> list[str]:
  """Says in one line per group how many parameters it takes.

  Args:
    rates: the groups.
    params: tree of arrays or ShapeDtypeStructs.

  Raises:
    ValueError: the regex of a group decides for no parameter, or all
      parameters are frozen.
  """
  if not rates:
    return []
  sizes = {
    partitioning.parameter_name(path): math.prod(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }
  if not any(_factor(rates, name) for name in sizes):
    raise ValueError(
      'config.optimizer.group_rates freezes every parameter, so nothing '
      'would be learnt; give a group a factor above 0.'
    )
  lines = []
  for number, (regex, factor) in enumerate(rates):
    taken = [name for name in sizes if _first(rates, name) == number]
    if not taken:
      earlier = any(re.search(regex, name) for name in sizes)
      names = list(sizes)
      raise ValueError(
        f'config.optimizer.group_rates has {regex!r}, which '
        + (
          'matches only names that an earlier group takes; put it first.'
          if earlier
          else 'matches no parameter; names are, for example, '
          f'{names[0]!r} and {names[-1]!r}.'
        )
      )
    count = sum(sizes[name] for name in taken)
    what = f'learning rate times {factor:g}' if factor else 'frozen'
    lines.append(
      f'{regex!r}: {what}, {count:,} parameters in {len(taken)} arrays'
    )
  return lines


def _is_group(group: Any) -> bool:
  return (
    isinstance(group, list | tuple)
    and len(group) == 2
    and isinstance(group[0], str)
    and isinstance(group[1], int | float)
    and not isinstance(group[1], bool)
    and math.isfinite(group[1])
    and group[1] >= 0
  )


def _first(rates: Sequence[tuple[str, float]], name: str) -> int | None:
  """Returns the index of the group that takes a name, or None."""
  for number, (regex, _) in enumerate(rates):
    if re.search(regex, name):
      return number
  return None


def _factor(rates: GroupRates, name: str) -> float:
  number = _first(rates, name)
  return 1.0 if number is None else rates[number][1]
