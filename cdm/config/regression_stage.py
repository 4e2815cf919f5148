"""Builds a stage that regresses the original from its low-res image."""

from ml_collections import ConfigDict

from cdm.config import (
  built_stage,
  diffusion_stage,
  instantiate,
  sampler_section,
)
from cdm.methods import regression


def regression_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config whose method.kind is 'regression'.

  Args:
    c: ConfigDict of the stage.
    chosen: of no use, as nothing is sampled.
  """
  del chosen
  instantiate.require(c, 'lowres')
  image_size = built_stage.image_size(c)
  net = diffusion_stage.unet(
    c,
    image_size,
    condition_on='nothing',
    condition_scale=None,
    lowres_level=False,
    learned_variance=False,
  )
  lowres = diffusion_stage.lowres_of(c, image_size)
  section = dict(c.method)
  del section['kind']
  options = instantiate.splat('method', regression.RegressionOptions, section)
  method = regression.regression(
    net, options, image_size=image_size, lowres=lowres
  )
  assert lowres is not None  # `regression` refuses it
  return built_stage.Stage(
    c,
    net,
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
  )
