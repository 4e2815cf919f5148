"""Shards a training state over the device mesh, by rules on parameter names.

A rule is a regular expression and a PartitionSpec. The first rule whose
expression is found in the name of an array decides over which axes of the mesh
(see `device_mesh`) that array is split.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cdm.distributed import factored_statistics
from cdm.distributed.device_mesh import AXES, replicated

# The entry of one array axis: the mesh axes that it is split over.
Entry = str | tuple[str, ...] | None
Spec = tuple[Entry, ...]
Rules = Sequence[tuple[str, Spec]]


def parameter_name(path: tuple[Any, ...]) -> str:
  """Returns the name of a leaf, e.g. 'params/down_0/conv1/kernel'.

  Args:
    path: key path of the leaf, as `jax.tree_util` gives it.
  """
  return jax.tree_util.keystr(path, simple=True, separator='/')


def state_sharding(abstract_state: Any, mesh: Mesh, rules: Rules = ()) -> Any:
  """Returns the shardings of a training state, which rules choose by name.

  The first rule whose regex is found anywhere in the name of a leaf decides.
  A leaf that no rule matches is replicated. Names begin with the field of the
  state, so `^ema_params/` or `^opt_state/` shards those alone and
  `conv/kernel$` shards parameters, EMA and moments alike. Factored moments,
  which lack an axis, take the entries of the axes that they have.

  Args:
    abstract_state: tree of arrays or ShapeDtypeStructs.
    mesh: the mesh.
    rules: ((regex, spec), ...) where a spec has an entry per array axis: None,
      a mesh axis, or a tuple of mesh axes; missing entries are None.

  Returns:
    The same tree of NamedSharding.

  Raises:
    ValueError: if a spec names an unknown axis or does not fit a shape.
  """
  compiled = [(re.compile(regex), _spec(regex, s)) for regex, s in rules]
  leaves = jax.tree_util.tree_leaves_with_path(abstract_state)
  shapes = {parameter_name(path): tuple(leaf.shape) for path, leaf in leaves}

  def place(path, leaf):
    name = parameter_name(path)
    for regex, spec in compiled:
      if regex.search(name):
        spec = factored_statistics.entries(name, leaf.shape, spec, shapes)
        _check_spec(name, leaf.shape, spec, mesh)
        return NamedSharding(mesh, PartitionSpec(*spec))
    return replicated(mesh)

  return jax.tree_util.tree_map_with_path(place, abstract_state)


def with_shardings(shapes: Any, mesh: Mesh, rules: Rules = ()) -> Any:
  """Returns abstract arrays with the shardings that the rules choose.

  Args:
    shapes: tree of arrays or ShapeDtypeStructs.
    mesh: the mesh.
    rules: see `state_sharding`.

  Returns:
    The same tree of ShapeDtypeStructs, each with a sharding.
  """
  return jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
    shapes,
    state_sharding(shapes, mesh, rules),
  )


def device_bytes(tree: Any) -> int:
  """Returns the bytes that one device holds of a tree of sharded arrays.

  Args:
    tree: tree of ShapeDtypeStructs that carry their sharding.
  """
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def check_rules(
  rules: Iterable[Sequence[Any]], abstract_state: Any = None
) -> tuple[tuple[str, Spec], ...]:
  """Checks the partition rules of a config and returns them as tuples.

  Args:
    rules: ((regex, spec), ...), see `state_sharding`; lists are accepted too.
    abstract_state: a TrainState in which every rule must match a leaf, or None
      to skip this check.

  Raises:
    ValueError: if a rule has another form, or its regex matches no leaf.
  """
  checked = []
  names = [
    parameter_name(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(abstract_state)
  ]
  for rule in rules:
    if not _is_rule(rule):
      raise ValueError(
        f'config.mesh.rules has {rule!r}; a rule is (regex over the name of '
        "an array, spec), e.g. ('^ema_params/', (None, None, None, 'fsdp'))."
      )
    regex, spec = rule
    try:
      matches = any(re.search(regex, name) for name in names)
    except re.error as error:
      raise ValueError(
        f'config.mesh.rules has {regex!r}, which is not a regular expression: '
        f'{error}.'
      ) from None
    if names and not matches:
      raise ValueError(
        f'config.mesh.rules has {regex!r}, which matches no name; names are, '
        f'for example, {names[1]!r} and {names[-2]!r}.'
      )
    checked.append((regex, _spec(regex, spec)))
  return tuple(checked)


# For each choice of `default_rules`: a regex of the leaves that it splits.
SPLITS = {
  'all': '',
  'optimizer': '^(opt_state|ema_params)/',
  'none': None,
}


def default_rules(
  abstract_state: Any, mesh: Mesh, *, split: str = 'all'
) -> tuple[tuple[str, Spec], ...]:
  """Returns rules that split the large arrays over `fsdp` and `tensor`.

  An array of two or more axes is split along its last axis (the output
  channels of a kernel) over `tensor` or over `fsdp`. If the last axis is split
  over `tensor`, or does not divide over `fsdp`, the longest other axis that
  divides is split over `fsdp`; if there is none, the last axis is split over
  both where it can be. All other arrays are replicated. If `fsdp` and `tensor`
  have size 1, there are no rules.

  Args:
    abstract_state: TrainState, or any tree of arrays or ShapeDtypeStructs.
    mesh: the mesh.
    split: 'all' splits the whole state; 'optimizer' splits the optimizer state
      and the EMA, and every device holds all parameters; 'none' splits nothing.

  Returns:
    ((regex, spec), ...) for `state_sharding`.

  Raises:
    ValueError: if `split` is unknown.
  """
  if split not in SPLITS:
    raise ValueError(
      f'config.mesh.split is {split!r}; known are {", ".join(SPLITS)}.'
    )
  pattern = SPLITS[split]
  rules = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_state):
    name = parameter_name(path)
    if pattern is None or not re.search(pattern, name):
      continue
    spec = _default_spec(leaf.shape, mesh.shape['fsdp'], mesh.shape['tensor'])
    if any(spec):
      rules.append((f'^{re.escape(name)}$', spec))
  return tuple(rules)


def _default_spec(shape: tuple[int, ...], fsdp: int, tensor: int) -> Spec:
  spec: list[Entry] = [None] * len(shape)
  if len(shape) < 2:
    return tuple(spec)
  last = len(shape) - 1
  parts = 1
  if tensor > 1 and shape[last] % tensor == 0:
    spec[last], parts = ('tensor',), tensor
  if fsdp == 1:
    return tuple(spec)
  longest = sorted(range(last), key=lambda axis: -shape[axis])
  # An axis that is split over both is put together again with more effort, so
  # `fsdp` then takes an axis of its own if it can.
  if spec[last]:
    for axis in longest:
      if shape[axis] % fsdp == 0:
        spec[axis] = ('fsdp',)
        return tuple(spec)
  # `tensor` comes before `fsdp`: gathering over `fsdp` then leaves each device
  # with one contiguous slice of the axis.
  if shape[last] % (parts * fsdp) == 0:
    spec[last] = (*(spec[last] or ()), 'fsdp')
    return tuple(spec)
  for axis in longest:
    if shape[axis] % fsdp == 0:
      spec[axis] = ('fsdp',)
      break
  return tuple(spec)


def _is_rule(rule: Any) -> bool:
  """Returns whether a rule of a config is (regex, spec)."""
  return (
    isinstance(rule, list | tuple)
    and len(rule) == 2
    and isinstance(rule[0], str)
    and isinstance(rule[1], list | tuple)
  )


def _spec(regex: str, spec: Iterable[Any]) -> Spec:
  spec = tuple(tuple(s) if isinstance(s, list) else s for s in spec)
  for axis in _axes_of(spec):
    if axis not in AXES:
      raise ValueError(
        f'The sharding rule for {regex!r} names the mesh axis {axis!r}; '
        f'known axes are {AXES}.'
      )
  return spec


def _axes_of(spec: Iterable[Any]) -> Iterator[str]:
  for entry in spec:
    if entry is not None:
      yield from entry if isinstance(entry, tuple) else (entry,)


def _check_spec(
  name: str, shape: tuple[int, ...], spec: Spec, mesh: Mesh
) -> None:
  if len(spec) > len(shape):
    raise ValueError(
      f'The sharding rule {spec} has {len(spec)} entries, but {name} has '
      f'shape {list(shape)}.'
    )
  for size, entry in zip(shape, spec, strict=False):
    parts = math.prod(mesh.shape[axis] for axis in _axes_of((entry,)))
    if size % parts:
      raise ValueError(
        f'{name} has shape {list(shape)}: its axis of {size} does not divide '
        f'over {parts} devices ({entry}).'
      )
