"""Computes LPIPS of pairs of images, with the published weights."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cdm.evaluation.batched_network import BatchedNetwork
from cdm.models import lpips
from cdm.models.pretrained import download, pytorch_file

CONVENTION = 'v0.1 with {backbone}, images as they are, sum over layers'


class LpipsScorer:
  """LPIPS as a function of two images; 0 for equal images.

  Attributes:
    convention: sentence that states version and backbone.
  """

  def __init__(
    self,
    backbone: str = 'alex',
    weights: Sequence[str | os.PathLike] | None = None,
  ):
    """Loads the weights.

    Args:
      backbone: name of the network, from `lpips.BACKBONES`.
      weights: (path of torchvision's backbone, path of the heads); both are
        downloaded by default.

    Raises:
      ValueError: a file is missing, or contains another network.
      OSError: the weights cannot be downloaded.
    """
    if backbone not in lpips.BACKBONES:
      raise ValueError(
        f'The backbone of LPIPS is {backbone!r}; known are '
        f'{", ".join(lpips.BACKBONES)}.'
      )
    net: Any = lpips.Lpips(backbone)
    files = fetch(backbone) if weights is None else weights
    for path in files:
      if not pathlib.Path(path).is_file():
        raise ValueError(
          f'{path} is not there. LPIPS takes two files: '
          f'{lpips.BACKBONE_URLS[backbone]} and '
          f'{lpips.HEAD_URL.format(backbone=backbone)}.'
        )
    state, heads = (pytorch_file.read(path) for path in files)
    self._network = BatchedNetwork(
      lambda params, a, b: net.apply({'params': params}, a, b).sum(axis=1),
      lpips.from_pytorch(state, heads, net),
      devices=jax.local_devices()[:1],
      batch_size=1,
    )
    self.convention = CONVENTION.format(backbone=backbone)

  def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
    """Returns the distance of two images uint8 [H, W, 3]; smaller is nearer."""
    return float(self._network(a[None], b[None])[0])


def fetch(backbone: str) -> tuple[pathlib.Path, pathlib.Path]:
  """Returns the paths of the backbone and of the heads.

  The files are downloaded into the user's cache if they are not there.

  Args:
    backbone: name of the network, from `lpips.BACKBONES`.

  Raises:
    ValueError: a file has a wrong checksum.
    OSError: the files cannot be downloaded.
  """
  url = lpips.BACKBONE_URLS[backbone]
  return (
    download.fetch(
      url, lpips.BACKBONE_SHA256[backbone], flag='--lpips_weights'
    ),
    download.fetch(
      lpips.HEAD_URL.format(backbone=backbone),
      lpips.HEAD_SHA256[backbone],
      cache='weights/lpips_v0.1',
      flag='--lpips_weights',
    ),
  )
