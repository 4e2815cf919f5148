"""Builds the device mesh and the partition rules from the `mesh` section."""

from typing import NamedTuple

import jax

from cdm.config import instantiate
from cdm.distributed import device_mesh, partitioning


class Mesh(NamedTuple):
  """Devices and what is split over them; the `mesh` section of a config.

  Attributes:
    data, fsdp, tensor: see `device_mesh.make_mesh`.
    split: what of the state is split over `fsdp` and `tensor`; see
      `partitioning.default_rules`.
    rules: ((regex, spec), ...) that come before those; see
      `partitioning.state_sharding`.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  split: str = 'all'
  rules: tuple = ()


def mesh(section, devices=None):
  """-> the mesh that a `mesh` section asks for.

  Args:
    section: see `Mesh`.
    devices: all devices by default.
  """
  built = instantiate.splat('mesh', Mesh, section)
  return device_mesh.make_mesh(
    data=built.data, fsdp=built.fsdp, tensor=built.tensor, devices=devices
  )


def rules(section, shapes, made):
  """-> the sharding rules of a `mesh` section.

  Args:
    section: see `Mesh`.
    shapes: the state, as a tree of things with a shape.
    made: the mesh.

  Raises:
    ValueError: a rule that names nothing, or that cannot be used.
  """
  built = instantiate.splat('mesh', Mesh, section)
  given = partitioning.check_rules(built.rules, shapes)
  return given + partitioning.default_rules(shapes, made, split=built.split)


def abstract_params(method):
  """-> the tree of shapes of a method's parameters; nothing is allocated."""
  return jax.eval_shape(method.init, jax.random.key(0))


def placed_params(method, section, made):
  """-> the EMA parameters of a method as shapes with their place on a mesh.

  Args:
    method: methods.base.Method.
    section: see `Mesh`; rules that name other parts of the state are passed
      over.
    made: the mesh.
  """
  tree = {'ema_params': abstract_params(method)}
  built = instantiate.splat('mesh', Mesh, section)
  given = partitioning.check_rules(built.rules)
  given += partitioning.default_rules(tree, made, split=built.split)
  return partitioning.placed(tree, made, given)['ema_params']
