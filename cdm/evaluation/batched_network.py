"""Runs a classifier over images, on all devices of this process."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cdm.distributed import compiler_options

BATCH_SIZE = 64


class Classifier:
  """uint8 images to logits, one compiled program per size of image."""

  def __init__(self, logits, variables, *, batch_size=BATCH_SIZE):
    """Places the weights.

    Args:
      logits: (variables, uint8 [B, H, W, 3]) -> [B, K].
      variables: tree of arrays.
      batch_size: images at once, rounded up to divide over the devices.
    """
    devices = jax.local_devices()
    mesh = Mesh(np.asarray(devices), ('data',))
    self._place = NamedSharding(mesh, PartitionSpec('data'))
    everywhere = NamedSharding(mesh, PartitionSpec())
    self._variables = jax.device_put(variables, everywhere)
    self.batch_size = -(-batch_size // len(devices)) * len(devices)
    self._run = jax.jit(
      logits,
      in_shardings=(everywhere, self._place),
      out_shardings=self._place,
      compiler_options=compiler_options.forward(devices),
    )

  def __call__(self, images):
    """uint8 [N, H, W, 3] -> NumPy [N, K]."""
    return np.concatenate(
      [
        self._logits(images[start : start + self.batch_size])
        for start in range(0, len(images), self.batch_size)
      ]
    )

  def _logits(self, images):
    # Filled up, so that one shape is compiled.
    filled = np.resize(images, (self.batch_size, *images.shape[1:]))
    found = self._run(self._variables, jax.device_put(filled, self._place))
    return np.asarray(found)[: len(images)]
