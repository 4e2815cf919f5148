"""Builds a stage that learns to draw in one step, by a scoring rule."""

import functools

from ml_collections import ConfigDict

from cdm.config import (
  built_stage,
  diffusion_stage,
  instantiate,
  key_errors,
  sampler_section,
)
from cdm.methods import scoring_rule
from cdm.methods.base import Method
from cdm.methods.diffusion import Diffusion

OBJECTIVE = ('prediction', 'residual_scale', 'label_dropout')


def scoring_rule_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config whose method.kind is 'scoring_rule'.

  Args:
    c: ConfigDict of the stage.
    chosen: the sampler that it draws with.
  """
  own = dict(c.method)
  del own['kind']
  section = {key: own.pop(key) for key in OBJECTIVE if key in own}
  options = instantiate.splat('method', scoring_rule.ScoringOptions, own)
  built = diffusion_stage.diffusion_stage(
    c,
    chosen,
    section=section,
    make=functools.partial(_scoring_rule, options=options),
  )
  sizes = [size or 'the image' for size in options.patch_sizes]
  return built._replace(
    summary={
      **built.summary,
      'noise levels': 'the noisiest',
      'loss': f'energy score, exponent {options.exponent:g}',
      'patches': ', '.join(map(str, sizes)),
    },
    loss_passes=2,  # two draws, both with a gradient
    trained_passes=2,
  )


def _scoring_rule(
  bound: Diffusion, options: scoring_rule.ScoringOptions
) -> Method:
  with key_errors.naming('method', options._fields, otherwise=''):
    return scoring_rule.scoring_rule(bound, options)
