"""Builds a stage that searches the latents of StyleGAN, which it trains."""

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
from cdm.methods import latent_search, pulse
from cdm.models import discriminator, flops, stylegan

# A step of the search draws an image and computes a gradient, which takes as
# long as two images.
_EVALUATIONS_PER_STEP = 3


def pulse_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config whose method.kind is 'pulse'.

  Args:
    c: ConfigDict of the stage; `model` is the generator's section and holds
      that of the discriminator, which is None if the generator is not trained.
    chosen: of no use, as there is no sampler.
  """
  del chosen
  instantiate.require(c, 'lowres')
  image_size = built_stage.image_size(c)
  net, other = _networks(c, image_size)
  lowres = diffusion_stage.lowres_of(c, image_size)
  section = dict(c.method)
  del section['kind']
  search = instantiate.splat(
    'method.search', latent_search.Search, section.pop('search', {})
  )
  options = instantiate.splat(
    'method', pulse.PulseOptions, section, search=search
  )
  method = pulse.pulse(net, other, options, lowres=lowres)
  searches = 0 if lowres is None else search.steps * search.restarts
  return built_stage.Stage(
    c,
    net,
    options,
    method,
    summary=_summary(options, other, lowres),
    lowres=lowres,
    input_size=image_size,
    evaluations=1 + _EVALUATIONS_PER_STEP * searches,
    turns=1 if lowres is None else search.steps,
    drawing=_drawing(options, lowres),
    traced=lambda: _traced(net, method),
  )


def _networks(c, image_size):
  """Returns (generator, discriminator or None) of the section `c.model`."""
  model = instantiate.as_dict('model', c.model)
  section = model.pop('discriminator', None)
  net = instantiate.splat(
    'model', stylegan.Generator, model, image_size=image_size
  )
  with key_errors.naming('model', model):
    stylegan.check(net)
  if section is None:
    return net, None
  other = instantiate.splat(
    'model.discriminator', discriminator.Discriminator, section
  )
  with key_errors.naming(
    'model.discriminator',
    instantiate.as_dict('model.discriminator', section),
    otherwise='pipeline.image_size',
  ):
    discriminator.check(other, image_size)
  return net, other


def _drawing(options, lowres):
  """Returns what images are drawn with, see `Stage.drawing`."""
  if lowres is None:
    return {'kind': 'pulse'}
  fit = {'fit_samples': options.fit_samples}
  return {'kind': 'pulse', **fit, 'search': options.search._asdict()}


def _summary(options, other, lowres):
  """Returns {label: value} of what the method does, for people."""
  search, trained = options.search, {'generator': 'not trained here'}
  if other is not None:
    trained = {
      'loss': f'non-saturating, R1 with weight {options.r1_weight:g}',
      'images of two latents': options.style_mixing,
    }
  if lowres is None:
    return {'method': 'StyleGAN', **trained}
  return {
    'method': 'pulse',
    **trained,
    'search': (
      f'{search.steps} steps of Adam, learning rate {search.learning_rate:g} '
      f'({search.schedule})'
    ),
    'starts per image': search.restarts,
    'tolerance eps': search.eps,
    **diffusion_stage.lowres_summary(lowres),
  }


def _traced(net, method):
  """Returns what `Stage.trace` returns, with an image of the generator."""
  params = jax.eval_shape(method.init, jax.random.key(0))
  generator = params.pop('generator')
  w = jax.ShapeDtypeStruct((1, net.num_layers, net.latent_size), jnp.float32)
  noise = [
    jax.ShapeDtypeStruct((1, side, side), jnp.float32)
    for side in net.noise_sides
  ]
  program = jax.make_jaxpr(
    lambda params, w, noise: net.apply(
      {'params': params}, w, noise, method='image'
    )
  )(generator, w, noise)
  return generator | params, flops.count_flops(program)
