"""Places a training state on the device mesh by rules of names.

A rule is a regular expression and a PartitionSpec: the first rule whose
expression is found in the name of an array says over which axes of the mesh
(see `device_mesh`) that array is split.
"""

import math
import re

import jax
from jax.sharding import NamedSharding, PartitionSpec

from cdm.distributed.device_mesh import AXES, replicated


def parameter_name(path):
  """Key path of a leaf -> its name, e.g. 'params/down_0/conv1/kernel'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def state_sharding(abstract_state, mesh, rules=()):
  """Shardings of a training state, found by name.

  The first rule whose regex is found anywhere in the name of a leaf decides;
  a leaf that no rule names is replicated. Names begin with the field of the
  state, so `^ema_params/` or `^opt_state/` shards those alone and
  `conv/kernel$` shards parameters, EMA and moments alike.

  Args:
    abstract_state: tree of things with a shape.
    mesh: the mesh.
    rules: ((regex, spec), ...) where a spec has an entry per array axis: None,
      a mesh axis, or a tuple of mesh axes; missing entries are None.

  Returns:
    The same tree of NamedSharding.

  Raises:
    ValueError: if a spec names an unknown axis or does not fit a shape.
  """
  compiled = [(re.compile(regex), _spec(regex, s)) for regex, s in rules]

  def place(path, leaf):
    name = parameter_name(path)
    for regex, spec in compiled:
      if regex.search(name):
        _check_spec(name, leaf.shape, spec, mesh)
        return NamedSharding(mesh, PartitionSpec(*spec))
    return replicated(mesh)

  return jax.tree_util.tree_map_with_path(place, abstract_state)


def placed(shapes, mesh, rules=()):
  """-> the tree as ShapeDtypeStructs that carry their sharding.

  Args:
    shapes: tree of things with a shape and a dtype.
    mesh: the mesh.
    rules: see `state_sharding`.
  """
  return jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
    shapes,
    state_sharding(shapes, mesh, rules),
  )


def check_rules(rules, abstract_state=None):
  """-> the rules as tuples.

  Args:
    rules: ((regex, spec), ...), see `state_sharding`.
    abstract_state: TrainState that every rule must name a part of; None asks
      for no such thing.

  Raises:
    ValueError: something else, or a rule whose regex is in no name.
  """
  checked = []
  names = [
    parameter_name(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(abstract_state)
  ]
  for rule in rules:
    if len(rule) != 2 or not isinstance(rule[0], str):
      raise ValueError(
        f'config.mesh.rules has {rule!r}; a rule is (regex over the name of '
        "an array, spec), e.g. ('^ema_params/', (None, None, None, 'fsdp'))."
      )
    regex, spec = rule
    try:
      found = any(re.search(regex, name) for name in names)
    except re.error as error:
      raise ValueError(
        f'config.mesh.rules has {regex!r}, which is no regular expression: '
        f'{error}.'
      ) from None
    if names and not found:
      raise ValueError(
        f'config.mesh.rules has {regex!r}, which is in no name; names are '
        f'such as {names[1]!r} and {names[-2]!r}.'
      )
    checked.append((regex, _spec(regex, spec)))
  return tuple(checked)


SPLITS = {
  'all': '',
  'optimizer': '^(opt_state|ema_params)/',
  'none': None,
}


def default_rules(abstract_state, mesh, *, split='all'):
  """Rules that split what is large over `fsdp` and `tensor`.

  An array of two axes or more is split along its last axis (of a kernel: its
  output channels) by `tensor`, then by `fsdp`; where it does not divide, by
  `fsdp` along its longest axis that does. The rest is replicated. With both
  axes of size 1 there is no rule.

  Args:
    abstract_state: TrainState, or any tree of things with a shape.
    mesh: the mesh.
    split: 'all' of the state; 'optimizer': its moments and the EMA, while
      every device holds all parameters; or 'none'.

  Returns:
    ((regex, spec), ...) for `state_sharding`.

  Raises:
    ValueError: an unknown `split`.
  """
  if split not in SPLITS:
    raise ValueError(
      f'config.mesh.split is {split!r}; known are {", ".join(SPLITS)}.'
    )
  rules = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_state):
    name = parameter_name(path)
    if SPLITS[split] is None or not re.search(SPLITS[split], name):
      continue
    spec = _default_spec(leaf.shape, mesh.shape['fsdp'], mesh.shape['tensor'])
    if any(spec):
      rules.append((f'^{re.escape(name)}$', spec))
  return tuple(rules)


def _default_spec(shape, fsdp, tensor):
  spec = [None] * len(shape)
  if len(shape) < 2:
    return tuple(spec)
  last = len(shape) - 1
  parts = 1
  if tensor > 1 and shape[last] % tensor == 0:
    spec[last], parts = ('tensor',), tensor
  if fsdp == 1:
    return tuple(spec)
  # In this order: gathered over `fsdp`, what is left is whole slices.
  if shape[last] % (parts * fsdp) == 0:
    spec[last] = (*(spec[last] or ()), 'fsdp')
    return tuple(spec)
  longest = sorted(range(last), key=lambda axis: -shape[axis])
  for axis in longest:
    if shape[axis] % fsdp == 0:
      spec[axis] = ('fsdp',)
      break
  return tuple(spec)


def gather_over_fsdp(params, shardings):
  """Inside jit: parameters as the network uses them, whole along `fsdp`.

  Without it the compiler may rather split the activations by channel than
  gather a kernel, and the batch would no longer stay where it is.

  Args:
    params: tree of arrays.
    shardings: the same tree of NamedSharding, or one of them.

  Returns:
    The same tree, constrained.
  """

  def gather(x, place):
    if 'fsdp' not in _axes_of(place.spec):
      return x
    spec = [
      tuple(a for a in _axes_of((entry,)) if a != 'fsdp') or None
      for entry in place.spec
    ]
    return jax.lax.with_sharding_constraint(
      x, NamedSharding(place.mesh, PartitionSpec(*spec))
    )

  if isinstance(shardings, NamedSharding):
    return jax.tree.map(lambda x: gather(x, shardings), params)
  return jax.tree.map(gather, params, shardings)


def _spec(regex, spec):
  spec = tuple(tuple(s) if isinstance(s, list) else s for s in spec)
  for axis in _axes_of(spec):
    if axis not in AXES:
      raise ValueError(
        f'The sharding rule for {regex!r} names the mesh axis {axis!r}; '
        f'known axes are {AXES}.'
      )
  return spec


def _axes_of(spec):
  for entry in spec:
    if entry is not None:
      yield from entry if isinstance(entry, tuple) else (entry,)


def _check_spec(name, shape, spec, mesh):
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
