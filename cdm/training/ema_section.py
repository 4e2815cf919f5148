"""Reads and checks the `ema` section of a config."""

from collections.abc import Mapping
from typing import NamedTuple

from cdm.checkpointing import average_names
from cdm.config import instantiate
from cdm.ops import power_function
from cdm.training import ema

SNAPSHOT_DTYPES = ('float16', 'float32')


class Section(NamedTuple):
  """The `ema` section of a config: the averages of the parameters.

  Attributes:
    decay: the decay per step of the main average; None if half_life_images is
      given.
    warmup: whether the decay grows from 1/10 at the start, see `ema.update`.
    half_life_images: images after which the weight of a parameter's value in
      the average has halved, whatever the batch size; None if decay is given.
    tracks: names of further averages, such as 'decay=0.999' or
      'half_life_images=500000', see `average_names`. They warm up as the main
      one does.
    power_stds: widths of power-function averages, [EDM2], kept too.
    snapshot_every_steps: those are also written to WORKDIR/ema_snapshots at
      multiples of this step and at the last, so that any width can be had
      afterwards; 0 writes none.
    snapshot_dtype: in which they are written. float16 has half the size;
      float32 loses nothing.
  """

  decay: float | None = None
  warmup: bool = True
  half_life_images: float | None = None
  tracks: tuple[str, ...] = ()
  power_stds: tuple[float, ...] = ()
  snapshot_every_steps: int = 0
  snapshot_dtype: str = 'float16'


class Snapshots(NamedTuple):
  """Which snapshots of the power-function averages a run writes.

  Attributes:
    every_steps: see `Section`.
    dtype: see `Section`.
    keys: of the averages that they hold.
  """

  every_steps: int
  dtype: str
  keys: tuple[str, ...]


class Decay(NamedTuple):
  """What `ema.update` needs: the decay per step, and whether it warms up."""

  decay: float
  warmup: bool


def read_ema_section(section: Mapping, *, batch_size: int) -> Decay:
  """Reads an `ema` section.

  Args:
    section: fields of `Section`.
    batch_size: images per step.

  Raises:
    ValueError: names the key that cannot be used.
  """
  built = instantiate.splat('ema', Section, section)
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


def read_tracks(section: Mapping, *, batch_size: int) -> dict[str, ema.Average]:
  """Returns the averages that are kept beside the main one, by their key.

  Args:
    section: fields of `Section`.
    batch_size: images per step.

  Raises:
    ValueError: names the key that cannot be used.
  """
  built = instantiate.splat('ema', Section, section)
  named = [_track(text, built.warmup, batch_size) for text in built.tracks]
  named += [_power(std) for std in built.power_stds]
  found = dict(named)
  if len(found) < len(named):
    names = [average_names.name_of(key) for key, _ in named]
    raise ValueError(
      f'config.ema.tracks and config.ema.power_stds name {names}, one of them '
      'twice; name each average once.'
    )
  return found


def read_snapshots(section: Mapping) -> Snapshots | None:
  """Returns which snapshots a run writes; None if it writes none.

  Args:
    section: fields of `Section`.

  Raises:
    ValueError: names the key that cannot be used.
  """
  built = instantiate.splat('ema', Section, section)
  if built.snapshot_dtype not in SNAPSHOT_DTYPES:
    raise ValueError(
      f'config.ema.snapshot_dtype is {built.snapshot_dtype!r}; known are '
      f'{", ".join(SNAPSHOT_DTYPES)}.'
    )
  every = built.snapshot_every_steps
  if every < 0:
    raise ValueError(
      f'config.ema.snapshot_every_steps is {every}; it must be at least 0, '
      'which writes none. Set it with --config.ema.snapshot_every_steps=NUMBER.'
    )
  if not every:
    return None
  if not built.power_stds:
    raise ValueError(
      f'config.ema.snapshot_every_steps is {every}, but config.ema.power_stds '
      'is (), so there is nothing to write. Set it with '
      '--config.ema.power_stds="(0.05, 0.10)".'
    )
  keys = tuple(_power(std)[0] for std in built.power_stds)
  return Snapshots(every, built.snapshot_dtype, keys)


def _track(text, warmup, batch_size):
  """Returns (key, average) of a name in `tracks`."""
  try:
    kind, value = average_names.parse(text)
  except ValueError as error:
    raise ValueError(f'config.ema.tracks: {error}') from None
  if kind == average_names.STD:
    raise ValueError(
      f'config.ema.tracks has {text!r}, a width; widths belong into '
      f'--config.ema.power_stds="({value},)".'
    )
  decay = value
  if kind == 'half_life_images' and value > 0:
    decay = ema.decay_of(value, batch_size=batch_size)
  if not 0.0 <= decay < 1.0 or not value > 0:
    raise ValueError(
      f'config.ema.tracks has {text!r}; a decay must be above 0 and below 1, '
      'and a half-life above 0.'
    )
  key = average_names.key(average_names.name(kind, value))
  return key, ema.Exponential(decay, warmup)


def _power(std):
  """Returns (key, average) of a width in `power_stds`."""
  try:
    gamma = power_function.exponent(std)
  except ValueError as error:
    raise ValueError(f'config.ema.power_stds: {error}.') from None
  key = average_names.key(average_names.name(average_names.STD, std))
  return key, ema.PowerFunction(gamma)
