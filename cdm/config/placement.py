"""Builds the device mesh and the partition rules from the `mesh` section.

It also determines how the parameters of a network are sharded over that mesh.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from cdm.config import instantiate, key_errors
from cdm.distributed import device_mesh, partitioning, platforms
from cdm.methods.base import Method


class Mesh(NamedTuple):
  """The `mesh` section of a config: the mesh axes and the partition rules.

  Attributes:
    data, fsdp, tensor: sizes of the mesh axes, see `device_mesh.make_mesh`.
      fsdp=0 leaves the choice to the number of hosts, see
      `device_mesh.chosen_fsdp`.
    split: which part of the training state is split over `fsdp` and `tensor`,
      see `partitioning.default_rules`.
    rules: ((regex, spec), ...) that take precedence over the default rules,
      see `partitioning.state_sharding`.
    device: kind of the devices, one of `platforms.DEVICES`; a command that
      would compute on others is refused. '' takes what JAX chooses.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  split: str = 'all'
  rules: tuple = ()
  device: str = ''


def mesh(
  section: ConfigDict | Mapping[str, Any],
  devices: Sequence[jax.Device] | None = None,
  *,
  num_slices: int = 1,
) -> jax.sharding.Mesh:
  """Builds the device mesh that a `mesh` section describes.

  Args:
    section: see `Mesh`.
    devices: the devices to use, which may be described only; None uses all of
      them, and they must be of the kind that the section names.
    num_slices: see `device_mesh.make_mesh`.

  Raises:
    ValueError: the axes do not multiply to the number of devices, or do not
      fit into their slices.
    platforms.NoDevice: JAX computes on devices of another kind.
  """
  built = instantiate.splat('mesh', Mesh, section)
  if built.device not in platforms.DEVICES:
    raise ValueError(
      f'config.mesh.device is {key_errors.shown(built.device)}; known are '
      f'{", ".join(platforms.DEVICES[1:])}, and an empty value, which leaves '
      'the choice to JAX. Set it with --config.mesh.device=gpu.'
    )
  if devices is None:
    platforms.require_kind(built.device)
  with key_errors.naming('mesh', Mesh._fields):
    return device_mesh.make_mesh(
      data=built.data,
      fsdp=built.fsdp,
      tensor=built.tensor,
      devices=devices,
      num_slices=num_slices,
    )


def drawing_mesh(
  section: ConfigDict | Mapping[str, Any],
  devices: Sequence[jax.Device] | None = None,
  *,
  num_slices: int = 1,
) -> jax.sharding.Mesh:
  """Builds the device mesh of a program that only uses trained parameters.

  As `mesh`, except that fsdp=0 is fsdp=1: there are no moments to update, and
  split parameters would be gathered at every step of a sampler.
  """
  section = dict(section)
  if section.get('fsdp') == device_mesh.CHOSEN:
    section['fsdp'] = 1
  return mesh(section, devices, num_slices=num_slices)


def is_fsdp_chosen(section: ConfigDict | Mapping[str, Any]) -> bool:
  """Returns whether a `mesh` section leaves the size of `fsdp` open."""
  built = instantiate.splat('mesh', Mesh, section)
  return built.fsdp == device_mesh.CHOSEN


def rules(
  section: ConfigDict | Mapping[str, Any], shapes: Any, mesh: jax.sharding.Mesh
) -> tuple[tuple[str, tuple], ...]:
  """Returns the partition rules of a `mesh` section, then the default rules.

  Args:
    section: see `Mesh`.
    shapes: the training state, as a tree of objects with a shape.
    mesh: the device mesh.

  Raises:
    ValueError: a rule matches no array of the state, or is malformed.
  """
  built = instantiate.splat('mesh', Mesh, section)
  with key_errors.naming('mesh', Mesh._fields, otherwise='mesh.rules'):
    custom = partitioning.check_rules(built.rules, shapes)
    return custom + partitioning.default_rules(shapes, mesh, split=built.split)


def abstract_params(method: Method) -> Any:
  """Returns the shapes of a method's parameters, without allocating them."""
  return jax.eval_shape(method.init, jax.random.key(0))


def placed_params(
  method: Method,
  section: ConfigDict | Mapping[str, Any],
  mesh: jax.sharding.Mesh,
) -> Any:
  """Returns the shapes of a method's EMA parameters with their shardings.

  Args:
    method: methods.base.Method.
    section: see `Mesh`. Rules that match other parts of the training state
      have no effect here.
    mesh: the device mesh.

  Returns:
    Tree of jax.ShapeDtypeStruct.
  """
  tree = {'ema_params': abstract_params(method)}
  built = instantiate.splat('mesh', Mesh, section)
  with key_errors.naming('mesh', Mesh._fields, otherwise='mesh.rules'):
    all_rules = partitioning.check_rules(built.rules)
    all_rules += partitioning.default_rules(tree, mesh, split=built.split)
    return partitioning.with_shardings(tree, mesh, all_rules)['ema_params']
