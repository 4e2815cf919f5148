"""Builds the network and the method of one stage from its config.

A stage is built by the function of its `method.kind`, each in a file of its
own.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cdm.config import (
  built_stage,
  classifier_stage,
  diffusion_stage,
  fsrgan_stage,
  instantiate,
  key_errors,
  pixel_recursive_stage,
  pulse_stage,
  raisr_stage,
  regression_stage,
  sampler_section,
  scoring_rule_stage,
  student_stage,
)
from cdm.config.built_stage import Stage


class Kind(NamedTuple):
  """A kind of `method`.

  Attributes:
    build: `(config, sampler_section.Chosen) -> Stage`.
    sections: those of `OWN_SECTIONS` that its configs have.
    has_network: whether its configs have the section `model`.
  """

  build: Callable[[ConfigDict, sampler_section.Chosen], Stage]
  sections: tuple[str, ...]
  has_network: bool = True


# The sections that not every kind of method has.
OWN_SECTIONS = ('schedule', 'lowres', 'sampler', 'optimizer', 'ema')
METHODS = {
  'diffusion': Kind(diffusion_stage.diffusion_stage, OWN_SECTIONS),
  'progressive_distillation': Kind(
    student_stage.progressive_stage, OWN_SECTIONS
  ),
  'consistency_distillation': Kind(
    student_stage.consistency_stage, OWN_SECTIONS
  ),
  'scoring_rule': Kind(scoring_rule_stage.scoring_rule_stage, OWN_SECTIONS),
  'classifier': Kind(classifier_stage.classifier_stage, ('optimizer', 'ema')),
  'regression': Kind(
    regression_stage.regression_stage, ('lowres', 'optimizer', 'ema')
  ),
  'fsrgan': Kind(fsrgan_stage.fsrgan_stage, ('lowres', 'optimizer', 'ema')),
  'pixel_recursive': Kind(
    pixel_recursive_stage.pixel_recursive_stage,
    ('lowres', 'optimizer', 'ema'),
  ),
  'raisr': Kind(raisr_stage.raisr_stage, ('lowres',), has_network=False),
  'pulse': Kind(pulse_stage.pulse_stage, ('lowres', 'optimizer', 'ema')),
}


# The kinds of method whose images may have any number of channels.
ANY_CHANNELS = (
  'diffusion',
  'regression',
  'progressive_distillation',
  'consistency_distillation',
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
  instantiate.require(c, 'name', 'method', 'pipeline')
  with key_errors.naming(None):
    kind = instantiate.kind_of(
      'method', instantiate.as_dict('method', c.method), METHODS
    )
    chosen = METHODS[kind]
    uses = chosen.sections
    if chosen.has_network:
      instantiate.require(c, 'model')
      uses = (*uses, 'model')
    for section in (*OWN_SECTIONS, 'model'):
      if section not in uses and c.get(section) is not None:
        raise ValueError(
          f'config.{section} is given, but method.kind={kind!r} has no use for '
          'it; remove the section.'
        )
    if sampler is not None and 'sampler' not in chosen.sections:
      raise ValueError(
        f'config.{sampler_key} is given, but {c.name!r} has '
        f'method.kind={kind!r}, which has no sampler; leave it out.'
      )
    _check_channels(c, kind)
    built = chosen.build(
      c, sampler_section.Chosen(sampler, sampler_key, sampler_steps)
    )
    return built._replace(
      channels=built_stage.channels(c), is_array=built_stage.is_array(c)
    )


def _check_channels(c, kind):
  """Refuses channels, or arrays, with a method that draws RGB images only."""
  channels = built_stage.channels(c)
  is_array = built_stage.is_array(c)
  if channels == built_stage.RGB and not is_array:
    return
  given = 'arrays' if is_array else f'config.pipeline.channels = {channels}'
  if kind not in ANY_CHANNELS:
    raise ValueError(
      f'method.kind={kind!r} works on RGB images, and not on {given}; use '
      f'{" or ".join(ANY_CHANNELS)}.'
    )
  if 'kind' in c.model:
    raise ValueError(
      f'model.kind={c.model.kind!r} works on RGB images, and not on {given}; '
      'use a U-Net, which has no kind.'
    )


def has_sampler(c: ConfigDict) -> bool:
  """Returns whether the method of a config draws with a sampler."""
  section = c.get('method')
  kind = section.get('kind') if isinstance(section, ConfigDict) else None
  return kind in METHODS and 'sampler' in METHODS[kind].sections


def is_classifier(c: ConfigDict) -> bool:
  """Returns True for the config of a classifier, False for any other."""
  section = c.get('method')
  kind = section.get('kind') if isinstance(section, ConfigDict) else None
  return isinstance(kind, str) and kind == 'classifier'


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
