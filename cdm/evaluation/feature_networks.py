"""Lists the networks in whose features sets of images are compared.

FID's own is Inception-v3. Any other gives a Fréchet distance of its own, which
compares with none of Inception's, and is called `fd`.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.models import cifar_resnet, inception
from cdm.models.inception import Features
from cdm.models.pretrained import cifar_resnet as cifar_weights
from cdm.models.pretrained import download
from cdm.models.pretrained import inception as inception_weights

# The metrics of sets that mean something in the features of any network.
OF_ANY = ('fd',)


class FeatureNetwork(NamedTuple):
  """A network with its weights.

  Attributes:
    name: its name in manifests.
    resize: how images are resized to its input, in manifests.
    apply: `(params, image uint8 [B, H, W, 3]) -> Features`.
    params: its parameters.
    sizes: {metric: number of features that its Gaussian is fitted to}.
    metrics: the metrics of sets that it serves; () is all.
    batch_size: images on each accelerator.
    on_cpus: images at once on CPUs.
  """

  name: str
  resize: str
  apply: Callable[[Any, jax.Array], Features]
  params: Any
  sizes: dict[str, int]
  metrics: tuple[str, ...] = ()
  batch_size: int = 64
  # On CPUs the operating system maps the arrays of a large batch anew for every
  # batch: with 64 images per batch, an image took a quarter more CPU time, and
  # the process 2.7 GB instead of 1.0.
  on_cpus: int = 8


def read(path: str | os.PathLike) -> FeatureNetwork:
  """Reads the weights of a network, which the kind of the file tells.

  Args:
    path: weights of Inception-v3, see `pretrained.inception.read`, or of a
      ResNet for CIFAR-10, see `pretrained.cifar_resnet.read`.

  Raises:
    ValueError: the file is damaged, or that of another network.
  """
  path = pathlib.Path(path)
  if path.suffix in ('.npz', '.th'):
    return _cifar_resnet(path)
  if path.name == inception_weights.URL.rpartition('/')[2]:
    # This file format has no checksums of its own, and a flipped bit would
    # change the FID unnoticed.
    download.verify(path, inception_weights.SHA256)
  return FeatureNetwork(
    name='inception-2015-12-05',
    resize='tf1 bilinear to 299',
    apply=_inception,
    params=inception_weights.read(path),
    sizes={
      'fid': inception.NUM_FEATURES,
      'fd': inception.NUM_FEATURES,
      'sfid': 17 * 17 * inception.NUM_SPATIAL,
    },
  )


def _inception(params: Any, image: jax.Array) -> Features:
  features: Any = inception.Inception().apply({'params': params}, image)
  return features


def _cifar_resnet(path: pathlib.Path) -> FeatureNetwork:
  """Returns a ResNet for CIFAR-10, which judges squares of 32 pixels."""
  blocks, params = cifar_weights.read(path)
  net = cifar_resnet.CifarResNet(blocks)

  def apply(params, image):
    squares = cifar_resnet.squares(image)  # [B, S, 32, 32, 3]
    count = squares.shape[:2]
    flat = squares.reshape(-1, *squares.shape[2:])
    found: Any = net.apply({'params': params}, flat)
    pool = found.pool.reshape(*count, -1)
    logits = found.logits.reshape(*count, -1)
    return Features(pool, jnp.zeros((len(image), 0)), logits, logits)

  return FeatureNetwork(
    name=f'cifar10-resnet{6 * blocks + 2}',
    resize='none; squares of 32 pixels',
    apply=apply,
    params=params,
    sizes={'fd': cifar_resnet.NUM_FEATURES},
    metrics=OF_ANY,
    batch_size=512,
    on_cpus=64,
  )
