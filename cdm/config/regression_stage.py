"""Builds a stage that regresses the original from its low-res image.

The section `model` chooses the network, and a method that suits it.
"""

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
from cdm.data import low_res_inputs
from cdm.methods import degraded_regression, lowres_conditioning, regression
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import enlarging_resnet, flops, unshuffled_resnet

_UNSHUFFLED = 'unshuffled_resnet'


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
      [PRSR], 'unshuffled_resnet' for the one of `degraded_regression`; without
      it, the network is a U-Net.
    chosen: of no use, as nothing is sampled.
  """
  del chosen
  instantiate.require(c, 'lowres')
  image_size = built_stage.image_size(c)
  section = dict(c.method)
  del section['kind']
  if instantiate.as_dict('model', c.model).get('kind') == _UNSHUFFLED:
    return _degraded_stage(c, image_size, section)
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
  instantiate.kind_of('model', section, {'resnet': None, _UNSHUFFLED: None})
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


def _degraded_stage(c, image_size, section):
  """Builds the Stage of a network that is told what degraded its input."""
  options = instantiate.splat(
    'method', degraded_regression.DegradedRegressionOptions, section
  )
  lowres = diffusion_stage.lowres_of(c, image_size)
  section = instantiate.as_dict('model', c.model)
  del section['kind']
  net = instantiate.splat('model', unshuffled_resnet.UnshuffledResnet, section)
  with key_errors.naming('model', section):
    unshuffled_resnet.check(net)
  num_levels = len(low_res_inputs.LEVELS)
  method = degraded_regression.degraded_regression(
    net,
    options,
    image_size=image_size,
    lowres=lowres,
    num_levels=num_levels,
  )
  enlarged = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  levels = jax.ShapeDtypeStruct((1, num_levels), jnp.float32)
  return built_stage.Stage(
    c,
    net,
    options,
    method,
    summary={
      'method': 'regression, of degraded low-res images too',
      'loss': f'L{options.norm}, and {options.border_weight:g} of differences '
      f'across borders of {net.patch_size} pixels'
      + (
        f', and {options.weave_weight:g} of the pattern of these squares'
        if options.weave_weight
        else ''
      ),
      'predicts': 'the image',
      'told of a low-res image': ', '.join(low_res_inputs.LEVELS),
      'margin': f'{net.margin} pixels',
      **diffusion_stage.lowres_summary(lowres),
    },
    lowres=lowres,
    input_size=image_size,
    margin=_margin(net, image_size, lowres),
    traced=functools.partial(
      flops.trace_call,
      functools.partial(net.init_with_output, train=False),
      (enlarged, levels),
      {},
    ),
  )


def _margin(net, image_size, lowres):
  """Returns the low-res pixels around a pixel on which it depends.

  A pixel may lie at the far side of the square that the network sees it in.
  """
  assert lowres is not None  # the method refuses it
  factor = image_size // lowres.size
  return -(-(net.margin + net.patch_size - 1) // factor)


def _trace(net, size):
  """Returns (abstract parameters, FLOPs of one forward pass)."""
  lowres = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return flops.trace_call(
    functools.partial(net.init_with_output, train=False), (lowres,), {}
  )
