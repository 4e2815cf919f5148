"""Builds the network of a diffusion model, and the model that suits it.

`model.kind` is 'detail_network' for details over a mean, or one of `NETWORKS`;
without it the network is a U-Net.
"""

from typing import Any

from ml_collections import ConfigDict

from cdm.config import built_stage, instantiate, key_errors
from cdm.data import low_res_inputs
from cdm.methods.detail_diffusion import DetailDiffusion
from cdm.methods.diffusion import Diffusion
from cdm.models import detail_network, edm2_plan, unshuffled_resnet, uvit
from cdm.models.detail_network import DetailNetwork
from cdm.models.edm2_unet import Edm2UNet
from cdm.models.uvit import UVit

DETAIL = 'detail_network'
# {kind: (network, what checks its fields)}; none of them is a regression's.
NETWORKS = {
  'edm2_unet': (Edm2UNet, edm2_plan.plan),
  'uvit': (UVit, uvit.plan),
}


def is_detail(c: ConfigDict) -> bool:
  """Returns whether the network of a config draws details over a mean."""
  return instantiate.as_dict('model', c.model).get('kind') == DETAIL


def detail_net(c: ConfigDict) -> DetailNetwork:
  """Builds the network of a config that `is_detail`.

  Args:
    c: ConfigDict of the stage.

  Raises:
    ValueError: names the key that the network cannot have.
  """
  section = instantiate.as_dict('model', c.model)
  del section['kind']
  mean = section.pop('mean', None)
  if mean is None:
    raise ValueError(
      'config.model.mean is missing; give the model section of the stage whose '
      'mean the details are over, without its kind.'
    )
  net = instantiate.splat(
    'model',
    DetailNetwork,
    section,
    mean=instantiate.splat(
      'model.mean', unshuffled_resnet.UnshuffledResnet, mean
    ),
  )
  with key_errors.naming('model', section):
    unshuffled_resnet.check(net.mean)
    detail_network.check(net)
  return net


def network(c: ConfigDict, image_size: int) -> Any:
  """Builds the network of a config whose `model.kind` is one of `NETWORKS`.

  Args:
    c: ConfigDict of the stage.
    image_size: H = W of the images.

  Raises:
    ValueError: names the key that the network cannot have.
  """
  section = instantiate.as_dict('model', c.model)
  kind = instantiate.kind_of('model', section, {**NETWORKS, DETAIL: None})
  constructor, plan = NETWORKS[kind]
  channels = built_stage.channels(c)
  net = instantiate.splat('model', constructor, section, out_channels=channels)
  with key_errors.naming('model', section, otherwise='pipeline.image_size'):
    plan(net, (image_size, image_size))
  return net


def bind(net: Any, *parts: Any, **more: Any) -> Diffusion:
  """Returns the diffusion model of a network; see `Diffusion`.

  Args:
    net: the network.
    *parts, **more: the other fields.
  """
  if isinstance(net, DetailNetwork):
    levels = len(low_res_inputs.LEVELS)
    return DetailDiffusion(net, *parts, num_levels=levels, **more)
  return Diffusion(net, *parts, **more)
