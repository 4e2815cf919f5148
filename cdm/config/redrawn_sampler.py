"""Changes which sampler a trained stage draws with, and in how many steps.

The flags `--sampler=KIND` and `--steps=N` of every command that draws, and the
keys `sampler` and `steps` of `cdm sweep`, come here. Unlike an override of
`sampler.kind`, which empties the section, they keep what does not depend on the
sampler: its grid, clipping and guidance.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cdm.config import instantiate, key_hints, sampler_section
from cdm.config.key_errors import shown
from cdm.diffusion.schedules import MOST_STEPS
from cdm.methods.diffusion_options import Sampling

Pairs = Sequence[tuple[str, str]]  # ((key, text), ...), see `parse`

OPTIONS = ('sampler', 'steps', 'start_level')
# The keys of a grid that state its number of steps.
COUNTS = ('num_steps', 'spacing', 'logsnrs')
# In the place of a grid whose levels were made for its own length: equally
# spaced steps of the training schedule, from its noisiest level on. All T of
# them are the grid 'full', and one is a step from noise alone.
GRID = 'trailing'
# What a sampler is called with beside its options.
_CALLED_WITH = ('logsnrs', 'noise')
_WHY = {
  'linear': 'whose betas are for its own length',
  'full': 'which has every step of the schedule',
  'levels': 'which lists its own levels',
}


class Redraw(NamedTuple):
  """What one stage is drawn with in the place of what its config says.

  Attributes:
    kind: the sampler, one of `sampler_section.SAMPLERS`; None keeps it.
    steps: the number of steps; None keeps the grid.
    start_level: the level in (0, 1] at which it begins, at a noised image; None
      begins at noise.
  """

  kind: str | None = None
  steps: int | None = None
  start_level: float | None = None

  @property
  def flags(self) -> str:
    """The flags that ask for it, for messages."""
    given = zip(OPTIONS, self, strict=True)
    return ' '.join(f'--{k}={v}' for k, v in given if v is not None)

  def __bool__(self) -> bool:
    return any(value is not None for value in self)


AS_TRAINED = Redraw()


def of_stages(pairs: Pairs, names: Sequence[str]) -> list[Redraw]:
  """Returns what each of several stages is drawn with.

  Args:
    pairs: what `parse` returned.
    names: the names of all stages.

  Raises:
    ValueError: a stage that is named is not there.
  """
  found = {name: Redraw() for name in names}
  for key, text in sorted(pairs, key=lambda pair: len(_words(pair[0]))):
    *stage, option = _words(key)
    for name in stage:
      if name not in found:
        raise ValueError(
          f'--{option}={name}:{text}: no stage with a sampler is called '
          f'{name!r}; there are {", ".join(names)}.'
        )
    # Only the first stage of a cascade has no image to start at but a given
    # one, and for that there is a flag.
    unnamed = names[:1] if option == 'start_level' else names
    for name in stage or unnamed:
      found[name] = found[name]._replace(**_value(option, text))
  return list(found.values())


def of_single(pairs: Pairs) -> Redraw:
  """Returns what the only stage of a command is drawn with.

  Args:
    pairs: what `parse` returned.

  Raises:
    ValueError: a stage is named, as of a cascade.
  """
  for key, text in pairs:
    *stage, option = _words(key)
    if stage:
      raise ValueError(
        f'--{option}={stage[0]}:{text} names a stage of a cascade, but a '
        f'single stage draws here; give --{option}={text}.'
      )
  return of_stages(pairs, [''])[0]


def parse(
  sampler: str | None, steps: str | None, start_level: str | None = None
) -> Pairs:
  """Parses `--sampler`, `--steps` and `--start_level`.

  Args:
    sampler: a kind for all stages, or 'STAGE:KIND,...'; None keeps all.
    steps: a number for all stages, or 'STAGE:N,...'; None keeps all.
    start_level: a level for the only or the first stage; None starts at noise.

  Returns:
    ((key, text), ...); the keys are those of `OPTIONS`, and 'stages.NAME.KEY'.

  Raises:
    ValueError: a kind is unknown, a number is none, or a stage is named twice.
  """
  pairs = {}
  given_as = zip(OPTIONS, (sampler, steps, start_level), strict=True)
  for option, given in given_as:
    if given is None:
      continue
    for part in given.split(','):
      name, colon, text = part.rpartition(':')
      if not name and (colon or ',' in given):
        raise ValueError(
          f'--{option}={given[:80]}: {shown(part)} names no stage; '
          'give one value for all stages, or STAGE:VALUE of each with commas '
          'between them.'
        )
      _value(option, text)
      key = f'stages.{name}.{option}' if name else option
      if key in pairs:
        raise ValueError(f'--{option}={given} names {name!r} twice.')
      pairs[key] = text
  return tuple(pairs.items())


def split(pairs: Iterable[tuple[str, str]]) -> tuple[Pairs, Pairs]:
  """Separates pairs that `parse` could have returned from config overrides.

  Args:
    pairs: ((dotted key, text), ...).

  Returns:
    (overrides, pairs of `parse`).

  Raises:
    ValueError: see `parse`.
  """
  overrides, redraws = [], []
  for key, text in pairs:
    if not _words(key):
      overrides.append((key, text))
      continue
    _value(_words(key)[-1], text)
    redraws.append((key, text))
  return tuple(overrides), tuple(redraws)


def check_overrides(
  redraw: Redraw,
  overrides: Iterable[tuple[str, str]],
  sections: Sequence[str] = ('sampler',),
) -> None:
  """Refuses overrides of the config that choose the same as the flags.

  Args:
    redraw: what a stage is drawn with.
    overrides: ((dotted key, text), ...) of its config or its cascade's.
    sections: dotted names of its section `sampler`.

  Raises:
    ValueError: both choose the sampler, or its number of steps.
  """
  taken = []
  if redraw.kind is not None:
    taken.append(('kind', f'--sampler={redraw.kind}'))
  if redraw.steps is not None:
    taken += [(f'grid.{key}', f'--steps={redraw.steps}') for key in COUNTS]
  flags = {f'{name}.{key}': flag for name in sections for key, flag in taken}
  for key, text in overrides:
    if key in flags:
      raise ValueError(
        f'{flags[key]} and --config.{key}={text} choose the same; give one of '
        'the two.'
      )


def redrawn(
  section: ConfigDict | Mapping[str, Any],
  redraw: Redraw,
  name: str = 'sampler',
) -> dict[str, Any]:
  """Returns a `sampler` section with another sampler or number of steps.

  The grid, clipping and guidance stay. Of the options of the sampler those stay
  that the new one has too, with the same default.

  Args:
    section: the section that is changed; it is left as it is.
    redraw: the changes.
    name: dotted name of the section, for messages.

  Raises:
    ValueError: the section has no known sampler or grid.
  """
  changed = instantiate.as_dict(name, section)
  old = instantiate.kind_of(name, dict(changed), sampler_section.SAMPLERS)
  kind = redraw.kind or old
  if kind != old:
    kept = _options(old).items() & _options(kind).items()
    fields = {'kind', 'grid', *Sampling._fields, *(key for key, _ in kept)}
    changed = {k: v for k, v in changed.items() if k in fields}
    changed['kind'] = kind
  if redraw.steps is not None:
    changed['grid'] = _resized(changed.get('grid'), redraw.steps, name)
  return changed


def sentence(
  stage: str,
  section: ConfigDict | Mapping[str, Any],
  redraw: Redraw,
  *,
  steps: int,
  evaluations: int,
) -> str:
  """Returns a line that says what a stage is drawn with.

  Args:
    stage: name of the stage.
    section, redraw: see `redrawn`.
    steps: steps that it takes.
    evaluations: network evaluations of one image.
  """
  after = redrawn(section, redraw)
  old, grid = section['grid']['kind'], after['grid']['kind']
  why = from_level = ''
  if old != grid:
    why = f' of the training schedule (not {old!r}, {_WHY[old]})'
  if redraw.start_level is not None:
    from_level = f' from level {redraw.start_level:g} on'
  return (
    f'{stage}: {after["kind"]}, {_count(steps, "step")} on the grid {grid!r}'
    f'{why}{from_level}, {_count(evaluations, "network evaluation")} per image'
  )


def _count(number, noun):
  return f'{number} {noun}{"" if number == 1 else "s"}'


def _resized(grid, steps, name):
  """Returns the section of a grid with another number of steps."""
  grid = instantiate.as_dict(f'{name}.grid', grid)
  kind = instantiate.kind_of(f'{name}.grid', dict(grid), sampler_section.GRIDS)
  if kind == 'respaced':
    return {'kind': kind, 'spacing': str(steps)}
  if kind in _WHY:
    return {'kind': GRID, 'num_steps': steps}
  return {**grid, 'num_steps': steps}


def _options(kind):
  """Returns {option: default} of a sampler."""
  # The first two arguments are the denoiser and x_T.
  known = list(
    inspect.signature(sampler_section.SAMPLERS[kind]).parameters.values()
  )[2:]
  return {p.name: p.default for p in known if p.name not in _CALLED_WITH}


def _words(key):
  """Returns [option] or [stage, option] of a key of `parse`, else []."""
  words = key.split('.')
  if words[-1] not in OPTIONS:
    return []
  if len(words) == 1:
    return words
  if words[0] == 'stages' and len(words) == 3:
    return words[1:]
  return []


def _value(option, text):
  """Returns {field of `Redraw`: value} that an option sets."""
  if option == 'sampler':
    if text not in sampler_section.SAMPLERS:
      near = key_hints.nearest(text, list(sampler_section.SAMPLERS))
      hint = f' Did you mean {near}?' if near else ''
      raise ValueError(
        f'--sampler={text[:80]}: known samplers are '
        f'{", ".join(sampler_section.SAMPLERS)}.{hint}'
      )
    return {'kind': text}
  if option == 'start_level':
    return {'start_level': _level(text)}
  is_number = text.isascii() and text.isdecimal() and len(text) < 20
  if not is_number or not 1 <= int(text) <= MOST_STEPS:
    raise ValueError(
      f'--steps={text[:80]}: give the number of steps, from 1 to {MOST_STEPS}.'
    )
  return {'steps': int(text)}


def _level(text):
  """Returns the start level that a text gives."""
  try:
    level = float(text)
  except ValueError:
    level = 0.0
  if not 0.0 < level <= 1.0:
    raise ValueError(
      f'--start_level={text[:80]}: give the level of noise that drawing starts '
      'at, a fraction of the diffusion time above 0 and up to 1.'
    )
  return level
