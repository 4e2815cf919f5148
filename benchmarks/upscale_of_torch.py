"""The process of `upscale.py` that runs PyTorch; it needs no JAX."""

import time

import torch

from benchmarks import step_process, upscale_networks


def start(*, network, tile):
  """Returns the functions of the process, see `step_process.serve`.

  Args:
    network: name of one of `upscale_networks.NETWORKS`.
    tile: side in low-res pixels of the squares that are evaluated.
  """
  bench = Bench(network, tile)
  return {'ready': bench.ready, 'run': bench.run, 'peak': bench.peak}


class Bench:
  """A network with random parameters."""

  def __init__(self, network, tile):
    torch.manual_seed(0)
    net = upscale_networks.NETWORKS[network]().eval()
    self._net = net.to(memory_format=torch.channels_last)
    self._tile = tile

  def ready(self):
    """Returns what there is to know about the network."""
    count = sum(p.numel() for p in self._net.parameters())
    return {'parameters': count, 'version': torch.__version__}

  @torch.inference_mode()
  def run(self, *, height, width):
    """Enlarges noise, tile by tile without a margin; returns the seconds."""
    step_process.forget_peak()
    picture = torch.rand(1, 3, height, width)
    began = time.perf_counter()
    large = torch.empty(
      1, 3, *(n * upscale_networks.FACTOR for n in (height, width))
    )
    for top in range(0, height, self._tile):
      for left in range(0, width, self._tile):
        part = picture[
          ..., top : top + self._tile, left : left + self._tile
        ].contiguous(memory_format=torch.channels_last)
        made = self._net(part)
        y, x = (n * upscale_networks.FACTOR for n in (top, left))
        large[..., y : y + made.shape[2], x : x + made.shape[3]] = made
    return {'seconds': time.perf_counter() - began}

  def peak(self):
    """Returns the most memory that the process has held since `run` began."""
    return {'peak_bytes': step_process.peak_bytes()}


if __name__ == '__main__':
  step_process.serve(start)
