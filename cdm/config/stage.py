"""Builds the network and the method of one stage from its config."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from cdm.config import (
  instantiate,
  key_errors,
  sampler_section,
  value_types,
)
from cdm.data import transforms
from cdm.diffusion import losses, schedules
from cdm.distributed import parameter_gather
from cdm.methods import classification, diffusion
from cdm.methods.base import Method
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import resnet, unet_plan
from cdm.models.unet import UNet

SCHEDULES = {'cosine': schedules.cosine, 'linear': schedules.linear}
WEIGHTINGS = {
  'none': None,
  'min_snr': losses.min_snr,
  'truncated_snr': losses.truncated_snr,
  'sigmoid': losses.sigmoid,
}
METHODS: dict[str, Callable[..., Any]] = {
  'diffusion': diffusion.diffusion,
  'classifier': classification.classifier,
}
# The function of each method, (key, B) -> {name: [B]}, that draws the values
# which must be drawn for the whole batch before it is split into microbatches;
# see training.step. None means that the method has no such values.
METHOD_DRAWS = {'diffusion': diffusion.draw_batch, 'classifier': None}


class Stage(NamedTuple):
  """The network and the method that one config describes, without parameters.

  Attributes:
    config: config of the stage.
    net: the network, a Flax module.
    schedule: noise schedule of training; None for a classifier.
    lowres: how the low-res input is made; None for a base model or classifier.
    objective: the object that the `method` section describes.
    method: the pure functions init, loss and sample.
    tester: functions that test a classifier; None for a diffusion model.
  """

  config: ConfigDict
  net: UNet | resnet.ResNet50
  schedule: schedules.Schedule | None
  lowres: Lowres | None
  objective: diffusion.Objective | classification.ClassifierOptions
  method: Method
  tester: classification.Tester | None = None

  @property
  def input_size(self) -> int:
    """H = W of the images that the network receives."""
    if isinstance(self.objective, classification.ClassifierOptions):
      return self.objective.size
    return self.config.pipeline.image_size

  @property
  def layerwise_loss(self) -> parameter_gather.LayerwiseLoss:
    """The loss of the method, for the training step."""
    return parameter_gather.LayerwiseLoss(
      self.method.loss,
      self.net.parameter_dtype,
      # A classifier normalises over the batch.
      is_sum=not isinstance(self.objective, classification.ClassifierOptions),
    )

  def boxes(self, params: Any) -> Callable[[Any], Any]:
    """Returns a function that boxes parameters, see `parameter_gather.box`.

    Args:
      params: the parameters, or their shapes, with their shardings.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding, params)
    return functools.partial(
      parameter_gather.box, places=places, dtype_of=self.net.parameter_dtype
    )


def stage(
  c: ConfigDict,
  sampler: ConfigDict | Mapping[str, Any] | None = None,
  *,
  sampler_key: str = 'sampler',
  sampler_steps: int | None = None,
) -> Stage:
  """Builds the network and the method of a stage.

  Args:
    c: ConfigDict of one stage.
    sampler: a section that replaces `c.sampler`, or None.
    sampler_key: dotted name of `sampler`, for error messages.
    sampler_steps: number of steps, spread over the sampler's own grid; None
      takes all of them.

  Returns:
    Stage.

  Raises:
    ValueError: names the section and key that cannot be used.
  """
  instantiate.require(c, 'name', 'method', 'model', 'pipeline')
  with key_errors.naming(None):
    if is_classifier(c):
      return _classifier(c)
    if sampler is None:
      instantiate.require(c, 'sampler')
      sampler, sampler_key = c.sampler, 'sampler'
    return _diffusion(c, sampler, sampler_key, sampler_steps)


def _diffusion(
  c: ConfigDict,
  sampler: ConfigDict | Mapping[str, Any],
  sampler_key: str,
  sampler_steps: int | None,
) -> Stage:
  """Builds the Stage of a config whose method is a diffusion model."""
  instantiate.require(c, 'schedule', 'lowres')
  image_size = _image_size(c)
  schedule = instantiate.choose('schedule', c.schedule, SCHEDULES)
  net = instantiate.splat('model', UNet, c.model, out_channels=3)
  with key_errors.naming(
    'model',
    instantiate.as_dict('model', c.model),
    otherwise='pipeline.image_size',
  ):
    unet_plan.plan(net, (image_size, image_size))
  lowres = None
  if c.lowres is not None:
    lowres = instantiate.splat('lowres', Lowres, c.lowres)
    check_magnification(lowres.size, image_size)
  section = dict(c.method)
  kind = instantiate.kind_of('method', section, METHODS)
  weighting = _weighting(section.pop('weighting', 'none'))
  objective = instantiate.splat(
    'method', diffusion.Objective, section, weighting=weighting
  )
  sampling = sampler_section.sampling(
    schedule, sampler, sampler_key, num_steps=sampler_steps
  )
  method = METHODS[kind](
    net, schedule, objective, sampling, image_size=image_size, lowres=lowres
  )
  sampler_section.try_out(
    sampling, sampler_key, learned_variance=net.learned_variance
  )
  return Stage(c, net, schedule, lowres, objective, method)


def is_classifier(c: ConfigDict) -> bool:
  """Returns True for a classifier's config, False for a diffusion model's."""
  section = c.get('method')
  kind = section.get('kind') if isinstance(section, ConfigDict) else None
  return isinstance(kind, str) and kind == 'classifier'


def _image_size(c: ConfigDict) -> int:
  """Returns `c.pipeline.image_size`; raises ValueError unless it is a size."""
  if 'image_size' not in c.pipeline:
    raise ValueError('config.pipeline.image_size is missing; define it.')
  size = c.pipeline.image_size
  value_types.check('pipeline.image_size', size, int)
  if not 1 <= size <= transforms.MOST_PIXELS:
    raise ValueError(
      f'config.pipeline.image_size is {size}; it must be from 1 to '
      f'{transforms.MOST_PIXELS}.'
    )
  return size


def require_classifier(c: ConfigDict, command: str) -> None:
  """Raises ValueError unless a config describes a classifier.

  Args:
    c: ConfigDict.
    command: the command that needs a classifier, e.g. 'cdm cas'.
  """
  if not is_classifier(c):
    raise ValueError(
      f'{c.name!r} is not a classifier; {command} takes configs with '
      "method.kind='classifier', such as configs/cas_imagenet128.py."
    )


def refuse_classifier(c: ConfigDict, how: str) -> None:
  """Raises ValueError if a config describes a classifier.

  Args:
    c: ConfigDict.
    how: participle for the message that says what cannot be done with a
      classifier, e.g. 'sampled'.
  """
  if is_classifier(c):
    raise ValueError(
      f'{c.name!r} is a classifier, which draws no images and cannot be {how}; '
      f'it is trained and tested by cdm cas --config=configs/{c.name}.py.'
    )


def _classifier(c: ConfigDict) -> Stage:
  """Builds the Stage of a config whose method.kind is 'classifier'."""
  image_size = _image_size(c)
  section = dict(c.method)
  kind = instantiate.kind_of('method', section, METHODS)
  options = instantiate.splat(
    'method', classification.ClassifierOptions, section
  )
  # With momentum 0 the network returns the batch-norm statistics of the current
  # batch alone, not a running average.
  net = instantiate.splat(
    'model', resnet.ResNet50, c.model, momentum=0.0, precision=None
  )
  with key_errors.naming('model', c.model):
    resnet.check(net)
  method, tester = METHODS[kind](
    net,
    options,
    image_size=image_size,
    normalise=resnet.normalise,
  )
  return Stage(c, net, None, None, options, method, tester)


def check_magnification(small: int, large: int) -> None:
  """Raises ValueError unless the low-res size divides the image size."""
  if not 0 < small <= large or large % small:
    raise ValueError(
      f'config.lowres.size is {small}, which does not divide '
      f'config.pipeline.image_size = {large}; every low-res pixel must become '
      'a whole number of pixels.'
    )


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
