"""Runs a network over batches of images, for the metrics of sets."""

from collections.abc import Sequence

import jax

from cdm.evaluation.batched_network import BatchedNetwork, judged_at_once
from cdm.evaluation.feature_networks import FeatureNetwork


class Extractor(BatchedNetwork):
  """A network: uint8 images [N, H, W, 3] to `Features` of NumPy arrays.

  Attributes:
    sizes, metrics: see `FeatureNetwork`.
  """

  def __init__(
    self,
    network: FeatureNetwork,
    *,
    devices: Sequence[jax.Device] | None = None,
    batch_size: int | None = None,
  ):
    """Places the weights on the devices.

    Args:
      network: the network and its parameters.
      devices: devices to run on; by default all devices of this process.
      batch_size: images per batch, rounded up to a multiple of the number of
        devices; by default what the network asks for.
    """
    self.sizes, self.metrics = network.sizes, network.metrics
    if batch_size is None:
      batch_size = judged_at_once(
        network.batch_size, on_cpus=network.on_cpus, devices=devices
      )
    super().__init__(
      network.apply, network.params, devices=devices, batch_size=batch_size
    )
