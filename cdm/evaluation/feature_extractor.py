"""Runs FID's network, Inception-v3, over batches of images."""

from collections.abc import Mapping, Sequence

import jax

from cdm.evaluation.batched_network import BatchedNetwork, judged_at_once
from cdm.models.inception import NUM_FEATURES, NUM_SPATIAL, Inception

BATCH_SIZE = 64  # on each device
# On CPUs the operating system maps the arrays of a large batch anew for every
# batch: with 64 images per batch, an image took a quarter more CPU time, and
# the process 2.7 GB instead of 1.0.
BATCH_SIZE_OF_CPUS = 8


class Extractor(BatchedNetwork):
  """FID's network: uint8 images [N, H, W, 3] to `Features` of NumPy arrays.

  Attributes:
    sizes: {metric: number of features its Gaussian is fitted to}.
  """

  sizes = {'fid': NUM_FEATURES, 'sfid': 17 * 17 * NUM_SPATIAL}

  def __init__(
    self,
    params: Mapping,
    *,
    devices: Sequence[jax.Device] | None = None,
    batch_size: int | None = None,
  ):
    """Places the weights on the devices.

    Args:
      params: parameters of `Inception`, see `pretrained.inception.read`.
      devices: devices to run on; by default all devices of this process.
      batch_size: images per batch, rounded up to a multiple of the number of
        devices; by default 64 on each of them, on CPUs 8 in all.
    """
    if batch_size is None:
      batch_size = judged_at_once(
        BATCH_SIZE, on_cpus=BATCH_SIZE_OF_CPUS, devices=devices
      )
    super().__init__(
      lambda params, image: Inception().apply({'params': params}, image),
      params,
      devices=devices,
      batch_size=batch_size,
    )
