"""Builds a stage whose method is a diffusion model."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cdm.config import (
  built_stage,
  instantiate,
  key_errors,
  sampler_section,
  value_types,
)
from cdm.diffusion import losses, sampler_steps, schedules
from cdm.methods import diffusion
from cdm.methods.base import Method
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import unet_plan
from cdm.models.unet import UNet

SCHEDULES = {'cosine': schedules.cosine, 'linear': schedules.linear}
WEIGHTINGS = {
  'none': None,
  'min_snr': losses.min_snr,
  'truncated_snr': losses.truncated_snr,
  'sigmoid': losses.sigmoid,
}


def diffusion_stage(
  c: ConfigDict,
  chosen: sampler_section.Chosen,
  *,
  section: dict[str, Any] | None = None,
  make: Callable[..., Method] = diffusion.diffusion,
) -> built_stage.Stage:
  """Builds the Stage of a config whose method is a diffusion model.

  Args:
    c: ConfigDict of the stage.
    chosen: the sampler that it draws with.
    section: the keys of the `Objective`; None takes those of `c.method`.
    make: makes the method of what `diffusion.diffusion` takes.
  """
  instantiate.require(c, 'schedule', 'lowres')
  sampler, key = chosen.section, chosen.key
  if sampler is None:
    instantiate.require(c, 'sampler')
    sampler, key = c.sampler, 'sampler'
  image_size = built_stage.image_size(c)
  schedule = instantiate.choose('schedule', c.schedule, SCHEDULES)
  net = unet(c, image_size)
  lowres = lowres_of(c, image_size)
  if section is None:
    section = dict(c.method)
    del section['kind']
  weighting = _weighting(section.pop('weighting', 'none'))
  objective = instantiate.splat(
    'method', diffusion.Objective, section, weighting=weighting
  )
  sampling = sampler_section.sampling(
    schedule, sampler, key, num_steps=chosen.steps
  )
  method = make(
    net, schedule, objective, sampling, image_size=image_size, lowres=lowres
  )
  sampler_section.try_out(sampling, key, learned_variance=net.learned_variance)
  steps = len(sampling.grid) - 1
  evaluations = sampler_steps.evaluations(sampling.run, sampling.grid)
  evaluations *= 2 if sampling.guidance_weight else 1
  return built_stage.Stage(
    c,
    net,
    objective,
    method,
    summary={
      'schedule': c.schedule.kind,
      'training steps T': c.schedule.num_steps,
      'noise levels': objective.levels,
      'prediction': objective.prediction,
      'loss': objective.loss,
      'logsnr range': [
        round(float(schedule.logsnr[-1]), 2),
        round(float(schedule.logsnr[0]), 2),
      ],
      'sampler': sampler['kind'],
      'sampling steps': steps,
      'network evaluations': evaluations,
      **lowres_summary(lowres),
    },
    schedule=schedule,
    lowres=lowres,
    input_size=image_size,
    turns=steps,
    evaluations=evaluations,
    is_residual=objective.residual_scale is not None,
  )


def unet(c: ConfigDict, image_size: int, **own: Any) -> UNet:
  """Builds the U-Net of the section `c.model`.

  Args:
    c: ConfigDict of the stage.
    image_size: H = W of the images.
    **own: fields that the method sets, and no config.

  Raises:
    ValueError: names the key that the network cannot have.
  """
  net = instantiate.splat('model', UNet, c.model, out_channels=3, **own)
  with key_errors.naming(
    'model',
    instantiate.as_dict('model', c.model),
    otherwise='pipeline.image_size',
  ):
    unet_plan.plan(net, (image_size, image_size))
  return net


def lowres_of(c: ConfigDict, image_size: int) -> Lowres | None:
  """Builds the `Lowres` of a config; None for a base model.

  Args:
    c: ConfigDict of the stage.
    image_size: H = W of the images.

  Raises:
    ValueError: the section cannot be used for images of that size.
  """
  if c.lowres is None:
    return None
  lowres = instantiate.splat('lowres', Lowres, c.lowres)
  built_stage.check_magnification(lowres.size, image_size)
  return lowres


def lowres_summary(lowres: Lowres | None) -> dict[str, Any]:
  """Returns the lines of a summary that tell how low-res images are made."""
  if lowres is None:
    return {}
  return {
    'lowres': f'{lowres.downsample} to {lowres.size}',
    'augmentation': lowres.augment,
  }


def _weighting(
  section: str | ConfigDict | Mapping[str, Any],
) -> Callable[..., jax.Array] | None:
  """Returns the loss weighting that `method.weighting` describes.

  Args:
    section: the name of a kind, or a section with a kind and its options.
  """
  if isinstance(section, str):
    section = dict(kind=section)
  section = instantiate.as_dict('method.weighting', section)
  kind = instantiate.kind_of('method.weighting', section, WEIGHTINGS)
  chosen = WEIGHTINGS[kind]
  # The first two arguments are logsnr and target.
  options = list(inspect.signature(chosen).parameters)[2:] if chosen else []
  for key in section:
    if key not in options:
      raise ValueError(
        f'config.method.weighting.{key} is not an option of {kind!r}; it has '
        f'{options}.'
      )
  if chosen is None:
    return None
  value_types.check_arguments('method.weighting', chosen, section)
  weighting = functools.partial(chosen, **section)
  with key_errors.naming('method.weighting', options):
    jax.eval_shape(
      lambda logsnr: weighting(logsnr, 'eps'),
      jax.ShapeDtypeStruct((1,), np.float32),
    )
  return weighting
