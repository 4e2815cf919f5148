"""Runs a network over any number of images, on all devices of this process.

Images go through in batches of one size, the last one filled up, so that one
program is compiled for one size of image.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cdm.distributed import compiler_options


class BatchedNetwork:
  """A function of parameters and images, called with any number of images.

  Attributes:
    batch_size: images at once.
  """

  def __init__(self, apply, params, *, batch_size, devices=None):
    """Places the parameters.

    Args:
      apply: (params, *images [B, ...]) -> tree of arrays [B, ...]; row n of
        the result depends on row n of the images alone.
      params: tree of arrays.
      batch_size: images at once, rounded up to divide over the devices.
      devices: to run on; all of this process by default.
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
      compiler_options=compiler_options.forward(devices),
    )

  def __call__(self, *images):
    """Arrays [N, ...] -> tree of NumPy arrays [N, ...]."""
    return self.finish(self.start(*images))

  def start(self, *images):
    """Begins with arrays [N, ...]. Returns what `finish` takes.

    Returns at once, so that the host may do something else meanwhile.

    Raises:
      ValueError: arrays of different lengths.
    """
    lengths = [len(array) for array in images]
    if len(set(lengths)) > 1:
      raise ValueError(
        f'The inputs of a network hold {lengths} images; give each as many.'
      )
    # Of no images a batch is run all the same, for the shapes of its results.
    return [
      self._begun([x[start : start + self.batch_size] for x in images])
      for start in range(0, max(lengths[0], 1), self.batch_size)
    ]

  def finish(self, started):
    """Waits for what `start` gave. Returns a tree of NumPy arrays [N, ...]."""
    parts = [
      jax.tree.map(lambda x, count=count: np.asarray(x)[:count], found)
      for count, found in jax.device_get(started)
    ]
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)

  def _begun(self, images):
    filled = [
      np.resize(x, (self.batch_size, *x.shape[1:]))
      if len(x) < self.batch_size
      else x
      for x in images
    ]
    batch = jax.device_put(filled, self._sharding)
    return len(images[0]), self._run(self._params, batch)
