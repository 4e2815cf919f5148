"""Runs FID's network over images, on all devices of this process."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cdm.distributed import compiler_options
from cdm.models.inception import (
  NUM_FEATURES,
  NUM_SPATIAL,
  Features,
  Inception,
)

BATCH_SIZE = 64
# There the arrays of a large batch are mapped anew by the system each time:
# 64 images took a quarter more CPU time each, and 2.7 GB instead of 1.0.
BATCH_SIZE_OF_CPUS = 8


class Extractor:
  """uint8 images to `Features`, one compiled program per size of image.

  Attributes:
    batch_size: images at once.
    sizes: {metric: features that its Gaussian is of}.
  """

  sizes = {'fid': NUM_FEATURES, 'sfid': 17 * 17 * NUM_SPATIAL}

  def __init__(self, params, *, devices=None, batch_size=None):
    """Places the weights.

    Args:
      params: of `Inception`, see `pretrained.inception.read`.
      devices: to run on; all of this process by default.
      batch_size: images at once, rounded up to divide over the devices; by
        default 64, on CPUs 8.
    """
    devices = jax.local_devices() if devices is None else devices
    if batch_size is None:
      on_cpu = devices[0].platform == 'cpu'
      batch_size = BATCH_SIZE_OF_CPUS if on_cpu else BATCH_SIZE
    mesh = Mesh(np.asarray(devices), ('data',))
    self._place = NamedSharding(mesh, PartitionSpec('data'))
    everywhere = NamedSharding(mesh, PartitionSpec())
    self._params = jax.device_put(params, everywhere)
    self.batch_size = -(-batch_size // len(devices)) * len(devices)
    self._run = jax.jit(
      lambda params, image: Inception().apply({'params': params}, image),
      in_shardings=(everywhere, self._place),
      out_shardings=self._place,
      compiler_options=compiler_options.forward(devices),
    )

  def __call__(self, images):
    """uint8 [N, H, W, 3] -> Features of float32 NumPy arrays [N, ...]."""
    return self.finish(self.start(images))

  def start(self, images):
    """Begins with some images, uint8 [N, H, W, 3]; -> what `finish` takes.

    Returns at once, so that the host may do something else meanwhile.
    """
    return [
      self._begun(images[start : start + self.batch_size])
      for start in range(0, len(images), self.batch_size)
    ]

  def finish(self, started):
    """Waits for what `start` gave. -> Features of NumPy arrays [N, ...]."""
    parts = [
      [np.asarray(x)[:count] for x in jax.device_get(found)]
      for count, found in started
    ]
    return Features(*map(np.concatenate, zip(*parts, strict=True)))

  def _begun(self, images):
    filled = images
    if len(images) < self.batch_size:  # so that one shape is compiled
      filled = np.resize(images, (self.batch_size, *images.shape[1:]))
    batch = jax.device_put(filled, self._place)
    return len(images), self._run(self._params, batch)
