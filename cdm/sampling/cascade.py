"""Draws images with a cascade: each stage super-resolves the one before.

  z ~ stage 1;  z_s ~ q(z_s | z);  x ~ stage 2 given z_s and s  [CDM] alg. 2

Image n of a run depends on (seed, n) only: its key is folded from the seed, and
its key in each stage is folded from that key. It does not depend on the batch
that it is drawn in.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.methods import lowres_conditioning
from cdm.methods.diffusion_options import Start
from cdm.ops import pixels
from cdm.ops.keys import image_keys, stage_keys
from cdm.sampling.drawing_stage import Stage

# Folded into an image's key to draw augmentation noise. The method folds in 0
# and 1.
AUGMENT = 2


def check(stages: Sequence[Stage]) -> None:
  """Raises ValueError, naming the stages, if they do not form a cascade."""
  if stages[0].lowres is not None:
    raise ValueError(
      f'Stage {stages[0].name!r} is the first of the cascade but needs a '
      f'{stages[0].lowres.size}-px input; put a base model before it.'
    )
  for before, stage in zip(stages, stages[1:], strict=False):
    if stage.lowres is None:
      raise ValueError(
        f'Stage {stage.name!r} follows {before.name!r} but takes no low-res '
        'input; only the first stage of a cascade is a base model.'
      )
    if (before.channels, before.is_array) != (stage.channels, stage.is_array):
      raise ValueError(
        f'Stage {before.name!r} draws {before.channels} channels and stage '
        f'{stage.name!r} {stage.channels}, or only one of them was trained on '
        'arrays; use stages that were trained on the same data.'
      )
    if before.image_size != stage.lowres.size:
      raise ValueError(
        f'Stage {before.name!r} makes {before.image_size}-px images but '
        f'stage {stage.name!r} takes {stage.lowres.size}-px input; use stages '
        'whose sizes follow each other.'
      )
    check_level(stage)
    if stage.truncated and stage.level and not before.stops:
      raise ValueError(
        f'Stage {before.name!r} has no noise levels, so it cannot stop early; '
        f'set truncated=False for stage {stage.name!r}.'
      )
    if stage.truncated and stage.level and before.residual:
      raise ValueError(
        f'Stage {before.name!r} diffuses a residual, so stopping it early '
        'does not give a noisy image; set truncated=False for stage '
        f'{stage.name!r}.'
      )
    if stage.truncated and stage.level and stage.start_level is not None:
      raise ValueError(
        f'Stage {stage.name!r} is to start at its enlarged low-res image, at '
        f'level {stage.start_level:g}, but stage {before.name!r} stops early, '
        'so that this image is noisy; set truncated=False for stage '
        f'{stage.name!r}, or leave its start level out.'
      )
  counts = {s.num_classes for s in stages if s.num_classes is not None}
  if len(counts) > 1:
    named = ', '.join(
      f'{s.name}: {s.num_classes}' for s in stages if s.num_classes
    )
    raise ValueError(
      f'The stages disagree about the number of classes ({named}); one label '
      'is given to all of them, so train them on the same labels.'
    )


def check_level(stage: Stage) -> None:
  """Raises ValueError if the stage was not trained on its sampling level.

  Args:
    stage: `Stage` with a low-res input.
  """
  assert stage.lowres is not None
  if not 0.0 <= stage.level <= 1.0:
    raise ValueError(
      f'Stage {stage.name!r} has augmentation level {stage.level}; a level is '
      'a fraction of the diffusion time, between 0 and 1.'
    )
  if stage.level and stage.lowres.augment != 'noise':
    raise ValueError(
      f'Stage {stage.name!r} is sampled at augmentation level {stage.level} '
      f'but was trained with augment={stage.lowres.augment!r}; use level 0.'
    )
  if stage.level > stage.lowres.max_level:
    raise ValueError(
      f'Stage {stage.name!r} is sampled at augmentation level {stage.level} '
      f'but was trained on levels up to {stage.lowres.max_level}.'
    )


def check_starts(first: Stage) -> None:
  """Raises ValueError unless a base model has images to start at, if it must.

  Args:
    first: the first stage of a cascade.
  """
  if first.start_level is not None and first.starts is None:
    raise ValueError(
      f'--start_level={first.start_level}: stage {first.name!r} has no low-res '
      'image to start at. Give images with `cdm sample --start_images=SET`, or '
      'leave the start level out.'
    )


def refuse_others(stage: Stage) -> None:
  """Raises ValueError unless a stage draws RGB images of 8 bits."""
  if not stage.is_rgb:
    what = 'arrays' if stage.is_array else 'images'
    raise ValueError(
      f'Stage {stage.name!r} draws {what} of {stage.channels} channel(s), and '
      'RGB images of 8 bits are needed here; only `cdm sample`, and `cdm '
      'upscale` of arrays, draw others.'
    )


class Settings(NamedTuple):
  """What a stage's compiled program takes as arguments beside its images.

  Attributes:
    level: float32 [], the augmentation level of its low-res input.
    noised: bool [], whether noise of that level is added to the input; it is
      not if the stage before was stopped there.
    stopped: bool [], whether this stage stops early, for a truncated follower.
    tuned: what `Stage.tune` returns, or None.
  """

  level: np.ndarray | jax.Array
  noised: np.ndarray | jax.Array
  stopped: np.ndarray | jax.Array
  tuned: Any = None


def settings_of(stage: Stage, follower: Stage | None = None) -> Settings:
  """Returns the settings of a stage as arrays of the host.

  Args:
    stage: the stage.
    follower: the stage after it, for which it may stop early; None for the
      last.
  """
  level = stage.level
  if stage.lowres is not None:
    level = lowres_conditioning.nearest_level(level, stage.lowres)
  stop = stop_logsnr_of(follower)
  tuned = None
  if stage.tune is not None:
    # Only a stage with noise levels has a start level, and its `tune` takes it.
    start = () if stage.start_level is None else (start_logsnr_of(stage),)
    tuned = stage.tune(stop, *start)
  return Settings(
    level=np.asarray(level, np.float32),
    noised=np.asarray(bool(stage.level) and not stage.truncated),
    stopped=np.asarray(stop is not None),
    tuned=tuned,
  )


def stop_logsnr_of(follower: Stage | None) -> float | None:
  """Returns the log-SNR at which the stage before `follower` stops, or None."""
  if follower is None or not (follower.truncated and follower.level):
    return None
  assert follower.lowres is not None, 'a later stage has a low-res input'
  level = np.float64(follower.level)
  return float(lowres_conditioning.level_logsnr(level, follower.lowres))


def start_logsnr_of(stage: Stage) -> float:
  """Returns the log-SNR of the start level of a stage that has one.

  A level is a fraction of the diffusion time of the cosine schedule, as the
  augmentation levels are where they are continuous.
  """
  assert stage.start_level is not None
  level = np.float64(stage.start_level)
  return float(lowres_conditioning.continuous_logsnr(level))


def super_resolve(
  stage: Stage,
  params: Any,
  z_0: jax.Array,
  *,
  keys: jax.Array,
  label: jax.Array | None,
  settings: Settings | None = None,
  stop_logsnr: float | None = None,
) -> jax.Array:
  """Adds noise of the stage's level to low-res images and super-resolves them.

  Args:
    stage: `Stage` with a low-res input.
    params: its parameters (an argument, so that the caller may jit this).
    z_0: [B, h, w, 3] float32, clean in [-1, 1], or z_s where `settings` add no
      noise (truncated sampling).
    keys: [B] keys of the stage, one per image.
    label: int32 [B] or None.
    settings: see `settings_of`, possibly as arguments of a program; None takes
      those of the stage, as the last of its cascade.
    stop_logsnr: log-SNR at which sampling stops, for a method without `tune`.

  Returns:
    [B, H, W, 3] float32 in [-1, 1].
  """
  assert stage.lowres is not None
  if settings is None:
    settings = settings_of(stage)
  level = jnp.broadcast_to(settings.level, z_0.shape[:1])
  z = z_0
  if stage.lowres.augment == 'noise':
    eps = jax.vmap(
      lambda key: jax.random.normal(
        jax.random.fold_in(key, AUGMENT), z_0.shape[1:]
      )
    )(keys)
    z_s = lowres_conditioning.augment_at(
      z_0, stage.lowres, level=level, eps=eps
    )
    z = jnp.where(settings.noised, z_s, z_0)
  conditions = {'lowres': z, 'level': level}
  if starts(settings):
    image = lowres_conditioning.upsample(z_0, stage.image_size, stage.lowres)
    conditions['start'] = Start(image)
  return draw_with(
    stage, params, settings, stop_logsnr, keys, label, **conditions
  )


def starts(settings: Settings) -> bool:
  """Returns whether a stage with these settings begins at a noised image."""
  return getattr(settings.tuned, 'start_logsnr', None) is not None


def draw_with(
  stage: Stage,
  params: Any,
  settings: Settings,
  stop_logsnr: float | None,
  keys: jax.Array,
  label: jax.Array | None,
  **conditions: Any,
) -> jax.Array:
  """Calls the method of a stage, with its settings as far as it takes them."""
  if stage.tune is not None:
    conditions['tuned'] = settings.tuned
  else:
    conditions['stop_logsnr'] = stop_logsnr
  label = label if stage.num_classes is not None else None
  return stage.sample(params, keys=keys, label=label, **conditions)


def sampler(
  stages: Sequence[Stage], programs: dict[Any, Any] | None = None
) -> Callable[..., list[jax.Array]]:
  """Returns a function that draws a batch of images with a cascade.

  Every stage is compiled once. Between stages the images pass through uint8, as
  they did in training. A stage before a truncated one stops early: its returned
  image is z_s, clipped.

  Args:
    stages: the stages in their order, the base model first.
    programs: the programs of earlier calls, which stages with the same
      `program` share; new ones are added. None compiles anew.

  Returns:
    `draw(seed, indices int [B], label int32 [B] or None, params)`, which
    returns the images of every stage, uint8 [B, H, W, 3], split over the
    stages' mesh. B must divide over the mesh, and the arguments must be the
    same in every process. `params` is a list with the parameters of every
    stage, in the place of those in `stages`; by default it is left out.

  Raises:
    ValueError: the stages do not form a cascade.
  """
  refuse_others(stages[-1])
  runs = stage_runs(stages, programs)

  def draw(seed, indices, label, params=None):
    images, z = [], None
    if stages[0].starts is not None:
      z = stages[0].starts(indices)
    if params is None:
      params = [stage.params for stage in stages]
    for given, run in zip(params, runs, strict=True):
      z, image = run(given, seed, indices, label, z)
      images.append(image)
    return images

  return draw


def stage_runs(
  stages: Sequence[Stage], programs: dict[Any, Any] | None = None
) -> list[Callable[..., tuple[jax.Array, jax.Array]]]:
  """Returns a function for each stage of a cascade, which draws its images.

  Args:
    stages, programs: see `sampler`.

  Returns:
    `run(params, seed, indices, label, z) -> (input of the next stage float32,
    image uint8)` of each stage, both [B, H, W, 3]. z is the input of the stage;
    for the first it is the images uint8 that it starts at, or None.

  Raises:
    ValueError: the stages do not form a cascade.
  """
  check(stages)
  check_starts(stages[0])
  programs = {} if programs is None else programs
  runs = []
  for i, stage in enumerate(stages):
    follower = stages[i + 1] if i + 1 < len(stages) else None
    # Without `tune`, the point at which the stage stops is compiled in.
    stop = stop_logsnr_of(follower) if stage.tune is None else None
    key = (i, stop, object() if stage.program is None else stage.program)
    if key not in programs:
      programs[key] = _jit_stage(stage.without_params(), i, stop)
    settings = settings_of(stage, follower)
    runs.append(_bound(programs[key], settings))
  return runs


def _bound(program, settings):
  """Returns a program of `_jit_stage` with its settings bound."""

  def run(params, seed, indices, label, z):
    indices = np.asarray(indices, np.uint32)
    return program(params, settings, np.uint32(seed), indices, label, z)

  return run


def _jit_stage(
  stage: Stage, i: int, stop_logsnr: float | None
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Compiles a stage, the i-th of a cascade.

  Returns:
    `run(params, settings, seed, indices, label, z) -> (input of the next stage
    float32, image uint8)`, both [B, H, W, 3]; for z see `stage_runs`.
  """

  @stage.jit
  def run(params, settings, seed, indices, label, z):
    keys, label = stage.split((stage_keys(image_keys(seed, indices), i), label))
    params = stage.boxed(params)
    if stage.lowres is None:
      conditions = {}
      if starts(settings):
        image = pixels.to_float(stage.split(z))
        conditions['start'] = Start(image)
      x = draw_with(
        stage, params, settings, stop_logsnr, keys, label, **conditions
      )
    else:
      x = super_resolve(
        stage,
        params,
        z,
        keys=keys,
        label=label,
        settings=settings,
        stop_logsnr=stop_logsnr,
      )
    image = pixels.to_uint8(x)
    if stage.is_array:
      return jnp.where(settings.stopped, x, jnp.clip(x, -1.0, 1.0)), image
    return jnp.where(settings.stopped, x, pixels.to_float(image)), image

  return run
