"""Runs a network over any number of images, on all devices of this process.

All batches have one size, and the last one is padded, so that only one program
is compiled for each image size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cdm.distributed import compiler_options


def judged_at_once(
  each: int, *, on_cpus: int, devices: Sequence[jax.Device] | None = None
) -> int:
  """Returns how many images this process judges at once.

  Args:
    each: images on every accelerator.
    on_cpus: images at once on CPUs, which share the memory of their machine.
    devices: devices to run on; by default all devices of this process.
  """
  devices = jax.local_devices() if devices is None else devices
  return on_cpus if devices[0].platform == 'cpu' else each * len(devices)


class BatchedNetwork:
  """A function of parameters and images, called with any number of images.

  Attributes:
    batch_size: images per batch.
  """

  def __init__(
    self,
    apply: Callable[..., object],
    params: object,
    *,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Places the parameters on the devices.

    Args:
      apply: (params, *images [B, ...]) -> tree of arrays [B, ...]; row n of
        the result depends on row n of the images alone.
      params: tree of arrays.
      batch_size: images per batch, rounded up to a multiple of the number of
        devices.
      devices: devices to run on; by default all devices of this process.
    """
    devices = jax.local_devices() if devices is None else devices
    mesh = Mesh(np.asarray(devices), ('data',))
    replicated = NamedSharding(mesh, PartitionSpec())
    self._sharding = NamedSharding(mesh, PartitionSpec('data'))
    self._params = jax.device_put(params, replicated)
    self.batch_size = -(-batch_size // len(devices)) * len(devices)
    self._run = jax.jit(
      lambda params, images: apply(params, *images),
      in_shardings=(replicated, self._sharding),
      out_shardings=self._sharding,
      compiler_options=compiler_options.for_devices(devices),
    )

  def __call__(self, *images: np.ndarray) -> Any:
    """Runs the network and waits for the result.

    Args:
      *images: the inputs, arrays [N, ...].

    Returns:
      Tree of NumPy arrays [N, ...].
    """
    return self.finish(self.start(*images))

  def start(self, *images: np.ndarray) -> list[tuple[int, object]]:
    """Dispatches the computation without waiting for it.

    The host is free for other work until it calls `finish`.

    Args:
      *images: the inputs, arrays [N, ...].

    Returns:
      The argument of `finish`: (number of images, results) of every batch.

    Raises:
      ValueError: arrays of different lengths.
    """
    lengths = [len(array) for array in images]
    if len(set(lengths)) > 1:
      raise ValueError(
        f'The inputs of a network hold {lengths} images; give the same '
        'number to each.'
      )
    # Without images one batch is run as well, for the shapes of the results.
    return [
      self._begun([x[start : start + self.batch_size] for x in images])
      for start in range(0, max(lengths[0], 1), self.batch_size)
    ]

  def finish(self, started: list[tuple[int, object]]) -> Any:
    """Waits for a computation and returns its tree of NumPy arrays [N, ...].

    Args:
      started: result of `start`.
    """
    parts = [
      jax.tree.map(lambda x, count=count: np.asarray(x)[:count], found)
      for count, found in jax.device_get(started)
    ]
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)

  def _begun(self, images: Sequence[np.ndarray]) -> tuple[int, object]:
    filled = [
      np.resize(x, (self.batch_size, *x.shape[1:]))
      if len(x) < self.batch_size
      else x
      for x in images
    ]
    batch = jax.device_put(filled, self._sharding)
    return len(images[0]), self._run(self._params, batch)
