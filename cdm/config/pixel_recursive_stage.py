"""Builds a stage of pixel recursive super-resolution."""

import functools

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
from cdm.methods import pixel_recursive as method_of
from cdm.models import flops
from cdm.models import pixel_recursive as network

# With kept activations, an image costs the features of each pixel once for
# each of its three colours: at most three forward passes.
EVALUATIONS = 3


def pixel_recursive_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config whose method.kind is 'pixel_recursive'.

  Args:
    c: ConfigDict of the stage.
    chosen: of no use, as `method.temperature` is all that sampling has.
  """
  del chosen
  instantiate.require(c, 'lowres')
  size = built_stage.image_size(c)
  lowres = diffusion_stage.lowres_of(c, size)
  if lowres is None:
    raise ValueError(
      "config.lowres is None, but method.kind='pixel_recursive' enlarges a "
      'low-res image; define the section lowres.'
    )
  net = instantiate.splat(
    'model',
    network.PixelRecursive,
    c.model,
    magnification=size // lowres.size,
  )
  with key_errors.naming('model', instantiate.as_dict('model', c.model)):
    network.check(net)
  section = dict(c.method)
  del section['kind']
  options = instantiate.splat('method', method_of.Options, section)
  method = method_of.pixel_recursive(
    net, options, image_size=size, lowres=lowres
  )
  return built_stage.Stage(
    c,
    net,
    options,
    method,
    summary={
      'method': 'pixel recursive',
      'loss': 'cross-entropy of A + B, and of A',
      'temperature': options.temperature,
      'sub-pixels, one after another': 3 * size**2,
      **diffusion_stage.lowres_summary(lowres),
    },
    lowres=lowres,
    input_size=size,
    evaluations=EVALUATIONS,
    turns=None,
    drawing={'kind': 'pixel_recursive', 'temperature': options.temperature},
    traced=functools.partial(_trace, net, size, lowres.size),
  )


def _trace(net, size, low):
  """Returns (abstract parameters, FLOPs of one forward pass)."""
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  lowres = jax.ShapeDtypeStruct((1, low, low, 3), jnp.float32)
  return flops.trace_call(
    functools.partial(net.init_with_output, train=False),
    (image,),
    {'lowres': lowres},
  )
