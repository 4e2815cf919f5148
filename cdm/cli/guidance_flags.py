"""Flags that guide the stages which a command draws with.

They are short for keys of the config: `sampler.guide` and
`sampler.guidance_weight` of a single stage, and the same keys of a stage in a
cascade, such as `stages.sr.guide`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence


def arguments(parser: argparse.ArgumentParser, *, cascades: bool) -> None:
  """Adds the flags to a command's parser.

  Args:
    parser: the parser.
    cascades: whether the command draws with cascades too.
  """
  stage = '[STAGE:]' if cascades else ''
  again = '; with STAGE: before it in a cascade, once per stage' * cascades
  parser.add_argument(
    '--guide',
    action='append',
    default=[],
    metavar=f'{stage}DIR[@STEP][@AVERAGE]',
    help='work directory of a weaker network, smaller or less trained, that '
    f'guides the stage (autoguidance); needs --guidance_weight{again}',
  )
  parser.add_argument(
    '--guidance_weight',
    action='append',
    default=[],
    metavar=f'{stage}W',
    help='w of D + w (D - D of the guide), or without --guide of eps_c + '
    'w (eps_c - eps_u): 0 is no guidance (others print 1 + w)' + again,
  )


def overrides(
  args: argparse.Namespace, stages: Sequence[str] | None = None
) -> list[tuple[str, str]]:
  """Returns the config keys that the flags set, as ((dotted key, text), ...).

  Args:
    args: the parsed arguments.
    stages: names of the stages of a cascade; None for a single stage.

  Raises:
    ValueError: a flag names no stage, names one twice, or is no number; or a
      guide comes without a weight.
  """
  guides = _by_stage('guide', args.guide, stages)
  weights = _by_stage('guidance_weight', args.guidance_weight, stages)
  for text in weights.values():
    if not _is_number(text):
      raise ValueError(
        f'--guidance_weight={text}: give a number, where 0 is no guidance.'
      )
  for stage, text in guides.items():
    if stage not in weights:
      place = f'{stage}:' if stage else ''
      raise ValueError(
        f'--guide={place}{text} has no weight; give '
        f'--guidance_weight={place}W too, for example {place}0.5, where 0 is '
        'no guidance.'
      )
  pairs = []
  for key, values in (('guide', guides), ('guidance_weight', weights)):
    for stage, text in values.items():
      section = f'stages.{stage}' if stage else 'sampler'
      pairs.append((f'{section}.{key}', text))
  return pairs


def _by_stage(flag, texts, stages):
  """Returns {name of the stage, '' for a single one: value}."""
  found = {}
  for text in texts:
    stage, value = '', text
    if stages is not None:
      stage, colon, value = text.partition(':')
      if not colon or stage not in stages or not value:
        raise ValueError(
          f'--{flag}={text}: a cascade has several stages; give '
          f'--{flag}=STAGE:VALUE, where STAGE is one of {", ".join(stages)}.'
        )
    if stage in found:
      raise ValueError(
        f'--{flag}={text}: --{flag} was given twice'
        + (f' for stage {stage!r}' if stage else '')
        + '; give it once.'
      )
    found[stage] = value
  return found


def _is_number(text):
  try:
    return math.isfinite(float(text))
  except ValueError:
    return False
