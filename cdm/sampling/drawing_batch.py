"""Chooses how many images are drawn at once on each device.

On accelerators the number follows from the device's memory:

  images per device = SHARE (memory - parameters) / bytes per image

rounded down to a power of two, at most `MOST`; a run of few images is then
split evenly over its batches. The bytes per image are those of the stage that
needs the most, counted from its traced sampler, see `models.live_bytes`. The
number depends on the stages, the kind of device and the number of images only,
so that a run that is continued draws with the same programs.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.distributed import collectives, device_mesh
from cdm.models import live_bytes
from cdm.ops import keys as ops_keys
from cdm.sampling import cascade

ON_CPUS = 64  # images over all devices; more gain nothing there
MOST = 256  # images per device; larger batches are hardly faster
# The rest is left for workspaces of the compiler's convolutions, for the
# network that judges the images, and for fragmentation.
SHARE = 0.7
TRACED = 8  # images of the traced batch, so that constant parts hardly count
# Memory of a process for the images of a batch, see `Limits`. It counts on
# hundreds of devices only, whose hosts have ten times as much.
HOST_BYTES = 4 << 30

_log = logging.getLogger(__name__)


class Limits(NamedTuple):
  """Bounds the number of images that are super-resolved at once.

  Attributes:
    most_per_device: the most on each device.
    own_rows: whether a process holds on its host the originals and results of
      its own devices alone, or those of the whole batch.
    per_device: the number on each part of the mesh that a batch is split over;
      None chooses it.
  """

  most_per_device: int = MOST
  own_rows: bool = False
  per_device: int | None = None

  def on_hosts(self, image_size: int, mesh: jax.sharding.Mesh | None) -> int:
    """Returns the most on all devices for which the hosts' memory is meant.

    Args:
      image_size: H = W of the images.
      mesh: the device mesh; None is one device.
    """
    each = max(1, HOST_BYTES // (2 * 3 * image_size**2))  # of every process
    if not self.own_rows or mesh is None:
      return each
    shards = device_mesh.num_batch_shards(mesh)
    return each * shards // len(device_mesh.local_rows(mesh, shards))


WHOLE_BATCHES = Limits()
OWN_ROWS = Limits(own_rows=True)
# The tiles of one picture are padded to a power of two, so that larger batches
# draw more of them in vain than they gain.
TILES = Limits(most_per_device=32, own_rows=True)


def batch_size(
  stages: Sequence[cascade.Stage],
  *,
  num: int | None = None,
  per_device: int | None = None,
  on_cpus: int = ON_CPUS,
  most: int | None = None,
  most_per_device: int = MOST,
  resident_bytes: int = 0,
) -> int:
  """Returns the number of images that are drawn at once, over all devices.

  Args:
    stages: the stages that draw, all on the same mesh.
    num: number of images of the whole run, over whose batches they are
      `evened`; None if it is not known.
    per_device: images at once on every part of the mesh that the batch is split
      over; None chooses it, as the docstring of this module says.
    on_cpus: what is chosen on CPUs: images at once over all devices.
    most: the most that is chosen, over all devices, but one image on each, see
      `Limits.on_hosts`; None sets no limit.
    most_per_device: the most that is chosen on each device.
    resident_bytes: memory of each device that other arrays occupy.

  Returns:
    A multiple of the number of parts that the mesh splits a batch into.
  """
  mesh = stages[0].mesh
  shards = 1 if mesh is None else device_mesh.num_batch_shards(mesh)
  memory = device_bytes(mesh)
  if per_device is not None:
    each = per_device
  elif memory is None:
    each = -(-on_cpus // shards)
  else:
    fits = min(fitting(stages, memory - resident_bytes), most_per_device)
    each = fits if most is None else min(fits, max(1, most // shards))
    if each < fits and collectives.is_first():
      _log.warning(
        'warning: %d images are drawn at once on each device, which has room '
        'for %d: a process holds at most %d GiB of originals and results. '
        '--batch_per_device sets another number.',
        *(each, fits, HOST_BYTES >> 30),
      )
  return evened(shards * each, num or shards * each, mesh)


def evened(size: int, num: int, mesh: jax.sharding.Mesh | None) -> int:
  """Returns the smallest batch that makes no more batches of `num` images.

  The last batch is filled up with images that are drawn in vain; these are then
  few.

  Args:
    size: a batch that divides over the mesh.
    num: number of images.
    mesh: the device mesh, or None for one device.
  """
  turns = -(-num // size)
  each = -(-num // turns)
  return each if mesh is None else device_mesh.padded_batch_size(each, mesh)


def device_bytes(mesh: jax.sharding.Mesh | None) -> int | None:
  """Returns the bytes of memory of one device, the same in all processes.

  A collective: every process must call it. None stands for CPUs, which share
  the memory of their machine, and for devices that do not tell.
  """
  devices = jax.devices() if mesh is None else list(mesh.devices.flat)
  local = [d for d in devices if d.process_index == jax.process_index()]
  if devices[0].platform == 'cpu' or not local:
    return None
  limit = (local[0].memory_stats() or {}).get('bytes_limit', 0)
  return int(collectives.broadcast_from_first(np.int64(limit))) or None


def fitting(stages: Sequence[cascade.Stage], memory: int) -> int:
  """Returns how many images one device can draw at once: a power of two.

  Args:
    stages: the stages that draw, one after the other.
    memory: bytes of the device.
  """
  held = [parameter_bytes(stage.params) for stage in stages]
  # Parameters that are split over `fsdp` are gathered layer by layer.
  gathered = max(
    leaf.size * leaf.dtype.itemsize
    for stage in stages
    for leaf in jax.tree.leaves(stage.params)
  )
  # The compiler may keep a copy of a network's parameters in bfloat16.
  free = SHARE * (memory - sum(held) - max(held) / 2 - gathered)
  each = int(free // max(image_bytes(stage) for stage in stages))
  return 1 << (min(max(each, 1), MOST).bit_length() - 1)


def parameter_bytes(params: Any) -> int:
  """Returns the bytes that one device holds of a tree of arrays.

  Args:
    params: tree of arrays, or of ShapeDtypeStructs that carry their sharding.
  """
  return sum(
    int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(params)
  )


def image_bytes(stage: cascade.Stage) -> int:
  """Returns the bytes that drawing one image of a batch occupies.

  Nothing is run or compiled: the sampler of the stage is traced.
  """

  def draw(params, z_0):
    keys = ops_keys.image_keys(0, jnp.arange(TRACED))
    label = None
    if stage.num_classes is not None:
      label = jnp.zeros(TRACED, jnp.int32)
    if stage.lowres is None:
      return stage.sample(params, keys=keys, label=label)
    return cascade.super_resolve(stage, params, z_0, keys=keys, label=label)

  z_0 = None
  if stage.lowres is not None:
    shape = (TRACED, stage.lowres.size, stage.lowres.size, stage.channels)
    z_0 = jax.ShapeDtypeStruct(shape, jnp.float32)
  program = jax.make_jaxpr(draw)(stage.params, z_0)
  return -(-live_bytes.count(program) // TRACED)
