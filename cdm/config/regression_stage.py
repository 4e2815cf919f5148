"""Builds a stage that regresses the original from its low-res image."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from cdm.config import (
  built_stage,
  diffusion_stage,
  instantiate,
  key_errors,
  sampler_section,
)
from cdm.methods import lowres_conditioning, regression
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import enlarging_resnet, flops


class _Network(NamedTuple):
  """A network, and what it takes.

  Attributes:
    net: the Flax module.
    enlarges: whether it takes the low-res image, not the upsampled.
  """

  net: Any
  enlarges: bool


def regression_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config whose method.kind is 'regression'.

  Args:
    c: ConfigDict of the stage. `model.kind` is 'resnet' for the network of
      [PRSR]; without it, the network is a U-Net.
    chosen: of no use, as nothing is sampled.
  """
  del chosen
  instantiate.require(c, 'lowres')
  image_size = built_stage.image_size(c)
  section = dict(c.method)
  del section['kind']
  options = instantiate.splat('method', regression.RegressionOptions, section)
  lowres = regression.check(options, diffusion_stage.lowres_of(c, image_size))
  is_resnet = 'kind' in instantiate.as_dict('model', c.model)
  network = (_resnet if is_resnet else _unet)(c, image_size, lowres)
  method = regression.regression(
    network.net,
    options,
    image_size=image_size,
    lowres=lowres,
    enlarges=network.enlarges,
  )
  return built_stage.Stage(
    c,
    network.net,
    options,
    method,
    summary={
      'method': 'regression',
      'loss': f'L{options.norm}',
      'predicts': (
        'the image'
        if options.residual_scale is None
        else 'the residual to the upsampled low-res image'
      ),
      **diffusion_stage.lowres_summary(lowres),
    },
    lowres=lowres,
    input_size=image_size,
    is_residual=options.residual_scale is not None,
    traced=(
      functools.partial(_trace, network.net, lowres.size)
      if network.enlarges
      else None
    ),
  )


def _unet(c: ConfigDict, image_size: int, lowres: Lowres) -> _Network:
  del lowres
  net = diffusion_stage.unet(
    c,
    image_size,
    condition_on='nothing',
    condition_scale=None,
    lowres_level=False,
    learned_variance=False,
  )
  return _Network(net, enlarges=False)


def _resnet(c: ConfigDict, image_size: int, lowres: Lowres) -> _Network:
  section = instantiate.as_dict('model', c.model)
  instantiate.kind_of('model', section, {'resnet': None})
  net = instantiate.splat(
    'model',
    enlarging_resnet.EnlargingResnet,
    section,
    magnification=image_size // lowres.size,
  )
  with key_errors.naming('model', section):
    enlarging_resnet.check(net)
  lowres_conditioning.check_doublings(net.magnification, lowres)
  return _Network(net, enlarges=True)


def _trace(net, size):
  """Returns (abstract parameters, FLOPs of one forward pass)."""
  lowres = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return flops.trace_call(
    functools.partial(net.init_with_output, train=False), (lowres,), {}
  )
