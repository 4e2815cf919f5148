"""Builds a stage that super-resolves with FSRNet, trained alone or as a GAN."""

import functools
import pathlib
from collections.abc import Callable

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
from cdm.methods import fsrgan
from cdm.models import discriminator, flops, fsrnet, lpips
from cdm.models.pretrained import pytorch_file


def fsrgan_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config whose method.kind is 'fsrgan'.

  The section `model` has the fields of `fsrnet.FsrNet`, and a section
  `discriminator` with those of `discriminator.Discriminator`, which is used if
  method.adversarial_weight is above 0.

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
      "config.lowres is None, but method.kind='fsrgan' enlarges a low-res "
      'image; define the section lowres.'
    )
  section = dict(c.method)
  del section['kind']
  options = instantiate.splat('method', fsrgan.FsrganOptions, section)
  fsrgan.check(options, lowres)
  _check_features(options)
  net = _generator(c, image_size)
  other = _discriminator(c, image_size) if options.adversarial_weight else None
  method = fsrgan.fsrgan(
    net,
    other,
    options,
    image_size=image_size,
    lowres=lowres,
    features=_features(options),
  )
  return built_stage.Stage(
    c,
    net,
    options,
    method,
    summary={
      'method': 'FSRNet' if other is None else 'FSRGAN',
      'adversarial weight': options.adversarial_weight,
      'R1': options.r1_weight if other is not None else 0,
      'perceptual loss': _perceptual_summary(options),
      'maps of faces': net.num_maps or 'none',
      **diffusion_stage.lowres_summary(lowres),
    },
    lowres=lowres,
    input_size=image_size,
    traced=lambda: _trace(net, other, image_size),
  )


def _generator(c, image_size):
  section = instantiate.as_dict('model', c.model)
  section.pop('discriminator', None)
  net = instantiate.splat('model', fsrnet.FsrNet, section)
  with key_errors.naming('model', section):
    fsrnet.check(net, image_size)
  return net


def _discriminator(c, image_size):
  section = c.model.get('discriminator')
  if section is None:
    raise ValueError(
      'config.model.discriminator is missing, but '
      f'config.method.adversarial_weight is {c.method.adversarial_weight}; '
      'define c.model.discriminator, or train FSRNet alone with '
      '--config.method.adversarial_weight=0.'
    )
  name = 'model.discriminator'
  net = instantiate.splat(name, discriminator.Discriminator, section)
  with key_errors.naming(name, section, otherwise='pipeline.image_size'):
    discriminator.check(net, image_size)
  return net


def _check_features(options):
  """Refuses features that no network has."""
  known = lpips.BACKBONES
  if options.feature_network not in known:
    raise ValueError(
      f'method.feature_network is {options.feature_network!r}; known are '
      f'{", ".join(known)}.'
    )
  maps = known[options.feature_network].count('tap')
  if not 1 <= options.feature_layer <= maps:
    raise ValueError(
      f'method.feature_layer is {options.feature_layer}; '
      f'{options.feature_network!r} has the layers 1 to {maps}.'
    )


def _features(options) -> Callable[[jax.Array], jax.Array] | None:
  """Returns the features of the perceptual loss; None if it is off.

  The weights are read when a loss is first traced: whoever draws images with a
  trained network needs no file.
  """
  if not (options.perceptual_weight and options.feature_weights):
    return None

  @functools.cache
  def read():
    path = pathlib.Path(options.feature_weights)
    if not path.is_file():
      url = lpips.BACKBONE_URLS[options.feature_network]
      raise ValueError(
        f'config.method.feature_weights is {str(path)!r}, which is not there; '
        f'it is the file {url}, or leave out the perceptual loss with '
        '--config.method.perceptual_weight=0.'
      )
    with key_errors.naming(None, otherwise='method.feature_weights'):
      return lpips.read_feature_map(
        pytorch_file.read(path), options.feature_network, options.feature_layer
      )

  return lambda image: read()(image)


def _perceptual_summary(options):
  if not options.perceptual_weight:
    return 'none'
  network = f'{options.feature_network}, layer {options.feature_layer}'
  if not options.feature_weights:
    return f'off: method.feature_weights names no file of {network}'
  return f'{options.perceptual_weight:g} of {network}'


def _trace(net, other, image_size):
  """Returns what `Stage.trace` does; the FLOPs are those of the generator.

  They are what drawing costs. MFU and plans leave out the discriminator.
  """
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  params, count = flops.trace_call(net.init_with_output, (image,), {})
  if other is not None:
    tree, _ = flops.trace_call(other.init_with_output, (image, image), {})
    params['discriminator'] = tree
  return params, count
