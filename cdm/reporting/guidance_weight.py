"""Says what a weight of guidance means, beside the number.

Programs disagree: some print w, where 0 is no guidance, others 1 + w, where 1
is none. A number alone is therefore mistaken sooner or later.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# What the weight w multiplies, without and with a weaker network as a guide.
NULL_CLASS = 'eps_c + w (eps_c - eps_u)'
WEAKER = 'D + w (D - D_guide)'
KEY = 'guidance_weight'


def described(weight: float, *, guide: bool = False) -> str:
  """Returns a weight with its law, and the number that others print.

  Args:
    weight: w, as configs have it.
    guide: whether a weaker network guides, rather than the null class.
  """
  law = WEAKER if guide else NULL_CLASS
  return f'{weight:g} ({law}; 0 is none; others print 1 + w = {1 + weight:g})'


def start_lines(stages: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns a line for each stage that is drawn with guidance.

  Args:
    stages: their entries in a manifest, with `name` and `sampler`.
  """
  lines = []
  for stage in stages:
    sampler = stage.get('sampler') or {}
    weight, guide = sampler.get(KEY), sampler.get('guide')
    if not weight:
      continue
    line = f'{stage["name"]}: guidance weight: '
    line += described(weight, guide=bool(guide))
    if guide:
      line += f', guided by {shown_guide(guide)}'
    lines.append(line)
  return lines


def shown_guide(guide: Mapping[str, Any]) -> str:
  """Returns a guide of a manifest as text: 'runs/small, step 5000'."""
  average = f', {guide["ema"]}' if 'ema' in guide else ''
  return f'{guide["workdir"]}, step {guide["checkpoint"]}{average}'


def is_weight(key: str) -> bool:
  """Returns whether a dotted config key is a weight of guidance."""
  return key.split('.')[-1] == KEY


def table_cell(key: str, value: str) -> str:
  """Returns the value of a config key for a table, as others print it too."""
  try:
    return (
      f'{value} (1 + w = {1 + float(value):g})' if is_weight(key) else value
    )
  except ValueError:  # of another type; whoever reads the config says so
    return value


NOTE = (
  f'A guidance weight is w of {NULL_CLASS}, or of {WEAKER} where a weaker '
  'network guides: 0 is none. Others print 1 + w.'
)
