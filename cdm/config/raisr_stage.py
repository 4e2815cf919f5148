"""Builds a stage whose filters are fitted to images: RAISR."""

from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from cdm.config import (
  built_stage,
  diffusion_stage,
  instantiate,
  key_errors,
  sampler_section,
)
from cdm.methods import raisr


class NoNetwork(NamedTuple):
  """What a method without a network has in its place.

  Attributes:
    num_classes, null_class: it takes no label.
    dtype: what is computed with.
  """

  num_classes: None = None
  null_class: bool = False
  dtype: str = 'float32'

  def parameter_dtype(self, path: str) -> Any:
    """Returns float32, whatever the parameter."""
    del path
    return np.float32


def raisr_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config whose method.kind is 'raisr'.

  Args:
    c: ConfigDict of the stage.
    chosen: of no use, as nothing is sampled.
  """
  del chosen
  instantiate.require(c, 'lowres')
  image_size = built_stage.image_size(c)
  lowres = diffusion_stage.lowres_of(c, image_size)
  if lowres is None:
    raise ValueError(
      "config.lowres is None, but method.kind='raisr' super-resolves a low-res "
      'image; define the section lowres.'
    )
  section = dict(c.method)
  del section['kind']
  options = instantiate.splat('method', raisr.RaisrOptions, section)
  with key_errors.naming('lowres', otherwise='lowres.size'):
    made = raisr.Raisr(options, image_size, lowres)
  hashed = made.hash
  buckets = int(np.prod(hashed.shape))

  def traced():
    filters = jax.ShapeDtypeStruct((buckets, hashed.patch**2), np.float32)
    return {'filters': filters}, 2 * hashed.patch**2 * image_size**2

  return built_stage.Stage(
    c,
    NoNetwork(),
    options,
    made.method,
    summary={
      'method': 'RAISR',
      'magnification': hashed.factor,
      'filters': f'{buckets:,} of {hashed.patch} x {hashed.patch} pixels',
      'blending': options.blending,
      **diffusion_stage.lowres_summary(lowres),
    },
    lowres=lowres,
    input_size=image_size,
    margin=made.margin,
    traced=traced,
  )
