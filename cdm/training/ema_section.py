"""Reads and checks the `ema` section of a config."""

from collections.abc import Mapping
from typing import NamedTuple

from cdm.config import instantiate
from cdm.training import ema


class Average(NamedTuple):
  """The `ema` section of a config: the exponential moving average.

  Attributes:
    decay: the decay per step; None if half_life_images is given.
    warmup: whether the decay grows from 1/10 at the start, see `ema.update`.
    half_life_images: images after which the weight of a parameter's value in
      the average has halved, whatever the batch size; None if decay is given.
  """

  decay: float | None = None
  warmup: bool = True
  half_life_images: float | None = None


class Decay(NamedTuple):
  """What `ema.update` needs: the decay per step, and whether it warms up."""

  decay: float
  warmup: bool


def read_ema_section(section: Mapping, *, batch_size: int) -> Decay:
  """Reads an `ema` section.

  Args:
    section: fields of `Average`.
    batch_size: images per step.

  Raises:
    ValueError: names the key that cannot be used.
  """
  built = instantiate.splat('ema', Average, section)
  half_life = built.half_life_images
  if half_life is not None:
    if built.decay is not None:
      raise ValueError(
        f'config.ema.half_life_images is {half_life!r} and config.ema.decay is '
        f'{built.decay!r}; they say the same in two ways. Give one, and set '
        'the other to None: --config.ema.decay=None.'
      )
    if not half_life > 0:
      raise ValueError(
        f'config.ema.half_life_images is {half_life!r}; it must be above 0. '
        'Set it with --config.ema.half_life_images=NUMBER.'
      )
    return Decay(ema.decay_of(half_life, batch_size=batch_size), built.warmup)
  if built.decay is None:
    raise ValueError(
      'config.ema.decay and config.ema.half_life_images are both None; give '
      'one, e.g. --config.ema.decay=0.9999.'
    )
  if not 0.0 <= built.decay < 1.0:
    raise ValueError(
      f'config.ema.decay is {built.decay}; it must be at least 0 and below 1. '
      'Set it with --config.ema.decay=NUMBER.'
    )
  return Decay(built.decay, built.warmup)
