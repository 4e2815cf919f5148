"""Builds the network and the method of one stage from its config."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from cdm.config import instantiate
from cdm.config.sampler_section import sampling
from cdm.diffusion import losses, schedules
from cdm.methods import classification, diffusion
from cdm.methods.base import Method
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import resnet
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


def stage(
  c: ConfigDict, sampler: ConfigDict | Mapping[str, Any] | None = None
) -> Stage:
  """Builds the network and the method of a stage.

  Args:
    c: ConfigDict of one stage.
    sampler: a section that replaces `c.sampler`, or None.

  Returns:
    Stage.

  Raises:
    ValueError: names the section and key that cannot be used.
  """
  instantiate.require(c, 'method')
  if is_classifier(c):
    return _classifier(c)
  instantiate.require(c, 'schedule', 'model', 'lowres', 'sampler', 'pipeline')
  schedule = instantiate.choose('schedule', c.schedule, SCHEDULES)
  net = instantiate.splat('model', UNet, c.model)
  lowres = None
  if c.lowres is not None:
    lowres = instantiate.splat('lowres', Lowres, c.lowres)
    check_magnification(lowres.size, c.pipeline.image_size)
  section = dict(c.method)
  kind = instantiate.kind_of('method', section, METHODS)
  weighting = _weighting(section.pop('weighting', 'none'))
  objective = instantiate.splat(
    'method', diffusion.Objective, section, weighting=weighting
  )
  method = METHODS[kind](
    net,
    schedule,
    objective,
    sampling(schedule, c.sampler if sampler is None else sampler),
    image_size=c.pipeline.image_size,
    lowres=lowres,
  )
  return Stage(c, net, schedule, lowres, objective, method)


def is_classifier(c: ConfigDict) -> bool:
  """Returns True for a classifier's config, False for a diffusion model's."""
  return 'method' in c and c.method.kind == 'classifier'


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
  instantiate.require(c, 'model', 'pipeline')
  section = dict(c.method)
  kind = instantiate.kind_of('method', section, METHODS)
  options = instantiate.splat(
    'method', classification.ClassifierOptions, section
  )
  # With momentum 0 the network returns the batch-norm statistics of the current
  # batch alone, not a running average.
  net = instantiate.splat('model', resnet.ResNet50, c.model, momentum=0.0)
  method, tester = METHODS[kind](
    net,
    options,
    image_size=c.pipeline.image_size,
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
  section = dict(kind=section) if isinstance(section, str) else dict(section)
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
  return functools.partial(chosen, **section) if chosen else None
