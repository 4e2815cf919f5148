"""Reads the guidance that a cascade asks for in the section of a stage.

The keys `guide` and `guidance_weight` of a section of `stages` are short for
those of the stage's sampler, which few cascades repeat.
"""

from collections.abc import Mapping
from typing import Any

from cdm.config import optional_keys, value_types


def of_stage(
  section: Mapping[str, Any],
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
  """Moves the guidance that a cascade asks for into the sampler of a stage.

  Args:
    section: a section of `stages`, which may have the keys of
      `optional_keys.OF_A_STAGE`.

  Returns:
    (the section without these keys, overrides of the stage's saved config). If
    the section has a `sampler` of its own, that has them now, and there are no
    overrides.

  Raises:
    ValueError: a guide comes without a weight, or a value has another type.
  """
  rest = {k: v for k, v in section.items() if k not in optional_keys.OF_A_STAGE}
  key = f'stages.{section["name"]}'
  guide = section.get('guide', '')
  weight = section.get('guidance_weight')
  value_types.check(f'{key}.guide', guide, str)
  value_types.check(f'{key}.guidance_weight', weight, float | None)
  if weight is None:
    if guide:
      raise ValueError(
        f'config.{key}.guide is {guide!r}, but its weight is missing; give '
        f'--config.{key}.guidance_weight=W, where 0 is no guidance.'
      )
    return rest, []
  asked = {
    'guidance_weight': float(weight),
    **({'guide': guide} if guide else {}),
  }
  if rest.get('sampler') is not None:
    return {**rest, 'sampler': {**dict(rest['sampler']), **asked}}, []
  return rest, [(f'sampler.{k}', str(v)) for k, v in asked.items()]
