"""Runs FID's network over images, on all devices of this process."""

import jax

from cdm.evaluation.batched_network import BatchedNetwork
from cdm.models.inception import NUM_FEATURES, NUM_SPATIAL, Inception

BATCH_SIZE = 64
# There the arrays of a large batch are mapped anew by the system each time:
# 64 images took a quarter more CPU time each, and 2.7 GB instead of 1.0.
BATCH_SIZE_OF_CPUS = 8


class Extractor(BatchedNetwork):
  """FID's network: uint8 images [N, H, W, 3] to `Features` of NumPy arrays.

  Attributes:
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
    super().__init__(
      lambda params, image: Inception().apply({'params': params}, image),
      params,
      devices=devices,
      batch_size=batch_size,
    )
