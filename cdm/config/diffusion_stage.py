"""Builds a stage whose method is a diffusion model."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from cdm.config import (
  bound_diffusion,
  built_stage,
  instantiate,
  key_errors,
  objective_section,
  sampler_section,
)
from cdm.data import low_res_inputs
from cdm.diffusion import cosine_logsnr, guidance, sampler_steps, schedules
from cdm.methods import diffusion, diffusion_score, forced_normalization
from cdm.methods.base import Method
from cdm.methods.diffusion import Diffusion
from cdm.methods.diffusion_options import Objective
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import flops, unet_plan
from cdm.models.unet import UNet
from cdm.reporting import guidance_weight

SCHEDULES = {
  'cosine': schedules.cosine,
  'linear': schedules.linear,
  'shifted_cosine': cosine_logsnr.shifted_cosine,
  'interpolated_cosine': cosine_logsnr.interpolated_cosine,
}


def diffusion_stage(
  c: ConfigDict,
  chosen: sampler_section.Chosen,
  *,
  section: dict[str, Any] | None = None,
  make: Callable[[Diffusion], Method] = diffusion.method_of,
  check: Callable[[Objective], None] = lambda objective: None,
) -> built_stage.Stage:
  """Builds the Stage of a config whose method is a diffusion model.

  Args:
    c: ConfigDict of the stage.
    chosen: the sampler that it draws with.
    section: the keys of the `Objective`; None takes those of `c.method`.
    make: makes the method of the diffusion model.
    check: refuses an objective that the method could not learn from, before
      the model is made.
  """
  instantiate.require(c, 'schedule', 'lowres')
  sampler, key = chosen.section, chosen.key
  if sampler is None:
    instantiate.require(c, 'sampler')
    sampler, key = c.sampler, 'sampler'
  image_size = built_stage.image_size(c)
  schedule = _schedule(c, image_size)
  is_detail = bound_diffusion.is_detail(c)
  net = _network(c, image_size, is_detail=is_detail)
  lowres = lowres_of(c, image_size)
  objective = objective_section.objective(
    c.method if section is None else section, schedule
  )
  sampling = sampler_section.sampling(
    schedule, sampler, key, num_steps=chosen.steps
  )
  check(objective)
  bound = bound_diffusion.bind(
    net, schedule, objective, sampling, image_size=image_size, lowres=lowres
  )
  project = forced_normalization.projection(net, objective)
  method = make(bound)._replace(project=project)
  sampler_section.try_out(sampling, key, learned_variance=net.learned_variance)
  steps = len(sampling.grid) - 1
  levels = sampler_steps.evaluated_levels(sampling.run, sampling.grid)
  guided = 0
  if sampling.guidance_weight:
    guided = guidance.guided_evaluations(levels, sampling.guidance_interval)
  evaluations = len(levels) + (0 if sampling.guide else guided)
  if is_detail:
    evaluations += 1  # of the mean
  built = built_stage.Stage(
    c,
    net,
    objective,
    method,
    summary={
      'schedule': c.schedule.kind,
      'training steps T': c.schedule.num_steps,
      'noise levels': objective_section.shown(objective.levels),
      'prediction': objective_section.shown(objective.prediction),
      'loss': objective.loss,
      'logsnr range': [
        round(float(schedule.logsnr[-1]), 2),
        round(float(schedule.logsnr[0]), 2),
      ],
      'sampler': sampler['kind'],
      'sampling steps': steps,
      'network evaluations': evaluations,
      **_guidance_summary(sampling, guided),
      **lowres_summary(lowres),
      **_projection_summary(sampling),
    },
    schedule=schedule,
    lowres=lowres,
    input_size=image_size,
    turns=steps,
    evaluations=evaluations,
    is_residual=objective.residual_scale is not None,
    traced=_traced(net, objective, image_size, lowres is not None),
  )
  return _over_a_mean(built, bound) if is_detail else built


def _over_a_mean(built, bound):
  """Returns the Stage of a `DetailDiffusion`, with what is its own."""
  size, net = bound.image_size, bound.net
  enlarged = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  levels = jax.ShapeDtypeStruct((1, bound.num_levels), jnp.float32)
  factor = size // bound.lowres.size
  both = functools.partial(net.init_with_output, method='both')
  return built._replace(
    summary={
      **built.summary,
      'predicts': 'what the mean leaves out',
      'told of a low-res image': ', '.join(low_res_inputs.LEVELS),
      'margin': f'{bound.reach} pixels an evaluation',
    },
    margin=-(-(bound.reach + net.unit - 1) * built.evaluations // factor),
    traced=functools.partial(flops.trace_call, both, (enlarged, levels), {}),
    # The mean is evaluated without a gradient.
    loss_passes=1,
  )


def _network(c, image_size, *, is_detail):
  """Builds the network that `model.kind` names; without it a U-Net."""
  if is_detail:
    return bound_diffusion.detail_net(c)
  if 'kind' in c.model:
    return bound_diffusion.network(c, image_size)
  return unet(c, image_size)


def unet(c: ConfigDict, image_size: int, **own: Any) -> UNet:
  """Builds the U-Net of the section `c.model`.

  Args:
    c: ConfigDict of the stage.
    image_size: H = W of the images.
    **own: fields that the method sets, and no config.

  Raises:
    ValueError: names the key that the network cannot have.
  """
  channels = built_stage.channels(c)
  net = instantiate.splat('model', UNet, c.model, out_channels=channels, **own)
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
  is_rounded = not built_stage.is_array(c)
  lowres = instantiate.splat('lowres', Lowres, c.lowres, is_rounded=is_rounded)
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


def _schedule(c: ConfigDict, image_size: int) -> schedules.Schedule:
  """Builds the noise schedule; some are made for a size of images."""
  section = instantiate.as_dict('schedule', c.schedule)
  kind = instantiate.kind_of('schedule', section, SCHEDULES)
  chosen = SCHEDULES[kind]
  of_size = 'image_size' in inspect.signature(chosen).parameters
  own = {'image_size': image_size} if of_size else {}
  return instantiate.splat('schedule', chosen, section, **own)


def _guidance_summary(sampling, guided):
  """Returns the lines of a summary that tell how images are guided."""
  if not sampling.guidance_weight:
    return {}
  guide = sampling.guide
  lines = {
    'guidance weight': guidance_weight.described(
      sampling.guidance_weight, guide=bool(guide)
    )
  }
  if guide:
    lines |= {'guide': guide, "guide's evaluations": guided}
  return lines


def _projection_summary(sampling):
  """Returns the line of a summary that tells whether images are projected."""
  if not sampling.project_lowres:
    return {}
  return {'projection': 'each predicted image, onto its low-res image'}


def _traced(net: Any, objective: Any, image_size: int, has_lowres: bool):
  """Returns what `Stage.traced` is: None unless the loss has parameters."""
  if objective.uncertainty is None:
    return None

  def traced():
    params, forward = flops.trace(net, image_size, has_lowres)
    own = jax.eval_shape(lambda: diffusion_score.init_uncertainty(objective))
    return {**params, **own}, forward

  return traced
