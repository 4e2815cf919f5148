"""Gathers split parameters one layer at a time, where the network uses them.

This is fully sharded data parallelism (FSDP, ZeRO-3). A parameter that is split
over devices which also split the batch travels into the network in a box. Flax
opens the box when a layer asks for its parameter, and opening it

  casts    the part of this device to the dtype in which the layer computes,
  gathers  the parts of all devices (all-gather), so bfloat16 travels, and
  reduces  the gradient, in the backward pass and in float32, into the part of
           this device (reduce-scatter).

A layer inside `nn.remat` opens its boxes again in the backward pass, so the
gathered parameters of a block live no longer than the block itself.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from flax.core import meta
from jax.sharding import NamedSharding, PartitionSpec

from cdm.distributed.device_mesh import BATCH_AXES
from cdm.distributed.partitioning import parameter_name

CANNOT_STACK = (
  'A split parameter is gathered by one layer, so layers that share a stack of '
  'parameters (nn.scan, nn.vmap) cannot have it; use mesh.split=optimizer.'
)


class LayerwiseLoss(NamedTuple):
  """A loss whose parameters are used by a Flax network and by nothing else.

  The training step gives parameters in boxes to such a loss, and gathered
  parameters to any other function.

  Attributes:
    loss: see `training.step.make_step`.
    dtype_of: (name of a parameter) -> dtype in which the network uses it.
    is_sum: True if the loss of an example depends on this example and its index
      alone, so that every device may compute it without the others. False if
      the network normalises over the batch.
  """

  loss: Callable[..., Any]
  dtype_of: Callable[[str], Any]
  is_sum: bool


class Layout(NamedTuple):
  """How a parameter is split, and how it is gathered.

  Attributes:
    place: the sharding of the parameter.
    dtype: the dtype that is gathered.
    is_manual: True inside `jax.shard_map` over the batch axes, where the value
      is the part of this device; False where the compiler splits arrays.
  """

  place: NamedSharding
  dtype: Any
  is_manual: bool


class Box(struct.PyTreeNode, meta.AxisMetadata):
  """A split parameter, which Flax gathers by calling `unbox`."""

  value: jax.Array
  layout: Layout = struct.field(pytree_node=False)

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the gathered parameter."""
    shape = list(self.value.shape)
    if self.layout.is_manual:
      for axis, names in batch_axes(self.layout.place):
        for name in names:
          shape[axis] *= self.layout.place.mesh.shape[name]
    return tuple(shape)

  def unbox(self) -> jax.Array:
    """Returns the gathered parameter in the dtype of its layer."""
    return _gather(self.value, self.layout)

  # Flax asks for these where it adds axes to parameters, which no network of
  # this project does.

  def replace_boxed(self, val: Any) -> 'Box':
    """Returns a box with the same layout around another value."""
    return self.replace(value=val)

  def add_axis(self, index: int, params: dict[Any, Any]) -> 'Box':
    """Refuses a new axis: the layout would no longer fit."""
    raise TypeError(CANNOT_STACK)

  def remove_axis(self, index: int, params: dict[Any, Any]) -> 'Box':
    """Refuses to remove an axis: the layout would no longer fit."""
    raise TypeError(CANNOT_STACK)


def box(
  params: Any,
  places: Any,
  dtype_of: Callable[[str], Any] | None = None,
  *,
  is_manual: bool = False,
) -> Any:
  """Puts every parameter that is split over the batch axes into a `Box`.

  For use inside jit, on the parameters that a Flax network is applied to.

  Args:
    params: tree of arrays; inside `jax.shard_map`, the parts of this device.
    places: the same tree of NamedSharding.
    dtype_of: see `LayerwiseLoss`; None keeps the dtype of the parameter.
    is_manual: see `Layout`.

  Returns:
    The same tree. Parameters that are not split stay as they are.
  """

  def put(path, x, place):
    if not batch_axes(place):
      return x
    dtype = dtype_of(parameter_name(path)) if dtype_of else x.dtype
    return Box(x, Layout(place, jnp.dtype(dtype), is_manual))

  return jax.tree_util.tree_map_with_path(put, params, places)


def gather(params: Any) -> Any:
  """Opens all boxes at once, for functions that know no boxes."""
  return meta.unbox(params)


def batch_axes(place: NamedSharding) -> list[tuple[int, tuple[str, ...]]]:
  """Returns [(axis of the array, mesh axes among `BATCH_AXES`)] of a sharding.

  Axes of the array that are not split over a batch axis are left out.
  """
  found = []
  for axis, entry in enumerate(place.spec):
    names = tuple(name for name in _names(entry) if name in BATCH_AXES)
    if names:
      found.append((axis, names))
  return found


def batch_spec(place: NamedSharding) -> PartitionSpec:
  """Returns the part of a sharding that concerns the batch axes."""
  entries: list[Any] = [None] * len(place.spec)
  for axis, names in batch_axes(place):
    entries[axis] = names
  return PartitionSpec(*entries)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(x: jax.Array, layout: Layout) -> jax.Array:
  x = x.astype(layout.dtype)
  if layout.is_manual:
    for axis, names in batch_axes(layout.place):
      x = jax.lax.all_gather(x, names, axis=axis, tiled=True)
    return x
  # The first constraint keeps the cast on the part of this device, so that the
  # compiler cannot gather float32 and cast afterwards.
  x = jax.lax.with_sharding_constraint(x, layout.place)
  return jax.lax.with_sharding_constraint(x, _gathered(layout.place))


def _gather_forward(x, layout):
  return _gather(x, layout), None


def _gather_backward(layout, _, gradient):
  gradient = gradient.astype(jnp.float32)
  if layout.is_manual:
    for axis, names in batch_axes(layout.place):
      gradient = jax.lax.psum_scatter(
        gradient, names, scatter_dimension=axis, tiled=True
      )
    return (gradient,)
  return (jax.lax.with_sharding_constraint(gradient, layout.place),)


_gather.defvjp(_gather_forward, _gather_backward)


def _gathered(place: NamedSharding) -> NamedSharding:
  """Returns a sharding without the batch axes."""
  entries = [
    tuple(name for name in _names(entry) if name not in BATCH_AXES) or None
    for entry in place.spec
  ]
  return NamedSharding(place.mesh, PartitionSpec(*entries))


def _names(entry: Any) -> tuple[str, ...]:
  if entry is None:
    return ()
  return entry if isinstance(entry, tuple) else (entry,)
