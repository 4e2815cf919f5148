"""Runs FID's network over images, on all devices of this process."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cdm.models.inception import Features, Inception

BATCH_SIZE = 64


class Extractor:
  """uint8 images to `Features`, one compiled program per size of image."""

  def __init__(self, params, *, devices=None, batch_size=BATCH_SIZE):
    """Places the weights.

    Args:
      params: of `Inception`, see `inception_weights.read`.
      devices: to run on; all of this process by default.
      batch_size: images at once, rounded up to divide over the devices.
    """
    devices = jax.local_devices() if devices is None else devices
    mesh = Mesh(np.asarray(devices), ('data',))
    self._place = NamedSharding(mesh, PartitionSpec('data'))
    everywhere = NamedSharding(mesh, PartitionSpec())
    self._params = jax.device_put(params, everywhere)
    self.batch_size = -(-batch_size // len(devices)) * len(devices)
    self._run = jax.jit(
      lambda params, image: Inception().apply({'params': params}, image),
      in_shardings=(everywhere, self._place),
      out_shardings=self._place,
    )

  def __call__(self, images):
    """Features of some images.

    Args:
      images: uint8 [N, H, W, 3].

    Returns:
      Features of float32 NumPy arrays [N, ...].
    """
    parts = [
      self._features(images[start : start + self.batch_size])
      for start in range(0, len(images), self.batch_size)
    ]
    return Features(*map(np.concatenate, zip(*parts, strict=True)))

  def _features(self, images):
    # Filled up, so that one shape is compiled.
    filled = np.resize(images, (self.batch_size, *images.shape[1:]))
    batch = jax.device_put(filled, self._place)
    found = jax.device_get(self._run(self._params, batch))
    return Features(*(np.asarray(x)[: len(images)] for x in found))
