"""Draws the grid of sample images that a run writes while it trains."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cdm.config import evaluated_images, sampler_section, stage
from cdm.config.loader import ConfigDict
from cdm.distributed import collectives, compiler_options, device_mesh
from cdm.methods import lowres_conditioning
from cdm.ops import keys as ops_keys
from cdm.ops import pixels, resize
from cdm.training import program

GRID_COLUMNS = 8
# Folded into an image's key for the noise of its low-res image. The method
# folds in 0 and 1.
AUGMENT = 2


def make_grid_sampler(
  c: ConfigDict, assembled: program.Program
) -> Callable[[Any], np.ndarray] | None:
  """Builds the function that draws a grid of samples.

  Seeds, labels and low-res images are the same in every grid. The grid of a
  base model shows samples; that of a super-resolution stage shows the low-res
  input without noise, the samples and the original of held-out images. If the
  low-res input is noised in training, there are two rows of samples: with the
  level at which the cascade uses the stage (`eval.level`), and the largest.
  They are drawn in the steps of config.train.sample_steps, because a grid is
  for a look.

  A device draws one image at least. Beyond config.train.num_samples these are
  of no use, and are neither read nor gathered.

  Args:
    c: config of one stage.
    assembled: its program; the images are split over its mesh.

  Returns:
    draw(ema_params) -> uint8 [H, W, 3], or None if the config asks for no
    grids.

  Raises:
    ValueError: the sampler has fewer steps than config.train.sample_steps, or
      the held-out data cannot be used.
  """
  n = c.train.num_samples
  if not n or not c.train.sample_every_steps:
    return None
  built, mesh = _built(c, assembled), assembled.mesh
  sample_images = built.sample_in_training
  assert sample_images is not None, 'a classifier draws no grids'
  columns = min(GRID_COLUMNS, n)
  size = c.pipeline.image_size
  # The indices are repeated up to a multiple of the devices, so that all of
  # them draw equally many images. Only the first n leave their devices.
  indices = np.resize(np.arange(n), device_mesh.padded_batch_size(n, mesh))
  labels = None
  if built.net.num_classes is not None:
    labels = indices.astype(np.int32) % built.net.num_classes
  seed = program.seed_of(c, program.GRID_SEED)
  boxed = assembled.built.boxes(assembled.state.ema_params)

  def jit(function):
    return jax.jit(
      device_mesh.in_mesh(function, mesh),
      out_shardings=device_mesh.replicated(mesh),
      compiler_options=compiler_options.for_devices(mesh.devices.flat),
    )

  def sample(params, labels, **conditioning):
    keys = ops_keys.image_keys(seed, indices)
    x = sample_images(
      boxed(params),
      keys=device_mesh.split_batch(keys, mesh),
      label=labels,
      **conditioning,
    )
    return pixels.to_uint8(x)[:n]

  if built.lowres is None:
    draw_base = jit(sample)

    def draw(params):
      drawn = pixels.shown(np.asarray(draw_base(params, labels)))
      return pixels.grid(drawn, columns)

    return draw

  lowres = built.lowres
  levels = _levels(assembled)

  @jit
  def draw_upscaled(params, originals, labels, level):
    z_0 = lowres_conditioning.downsample(pixels.of_batch(originals), lowres)
    low = resize.resize(z_0, size, method='nearest')
    keys = ops_keys.image_keys(seed, indices)
    eps = ops_keys.normals(_augmentation_keys(keys), z_0.shape[1:])
    level = jnp.full(len(indices), level)
    z = lowres_conditioning.augment_at(z_0, lowres, level=level, eps=eps)
    x = sample(params, labels, lowres=z, level=level)
    return pixels.to_uint8(low)[:n], x

  # The data is read now, so that unreadable data is refused at the start and
  # not after hours.
  originals, labels = collectives.arrays_from_first(
    lambda: evaluated_images.read_held_out(c, n)(range(n))
  )
  own = indices[device_mesh.local_rows(mesh, len(indices))]
  filled = device_mesh.shard_batch(originals[own], mesh)
  labels = None if built.net.num_classes is None else labels[indices]

  def draw(params):
    both = [
      draw_upscaled(params, filled, labels, np.float32(level))
      for level in levels
    ]
    drawn = [np.asarray(x) for x in (both[0][0], *(x for _, x in both))]
    rows = []
    for start in range(0, n, columns):
      for row in map(pixels.shown, (*drawn, _levels_of(originals))):
        row = row[start : start + columns]
        blank = np.full((columns - len(row), *row.shape[1:]), 255, np.uint8)
        rows.append(np.concatenate([row, blank]))
    return pixels.grid(np.concatenate(rows), columns)

  return draw


def describe(c: ConfigDict, assembled: program.Program) -> str | None:
  """Returns a line about the grids of a run, or None if it draws none.

  For example 'sample grids: 16 images every 20,000 steps, in 50 of the 4,000
  steps of the sampler (train.sample_steps)'.

  Args:
    c: config of one stage.
    assembled: its program.
  """
  schedule = assembled.schedule
  if not schedule.num_samples or not schedule.sample_every_steps:
    return None
  most = sampler_section.check_steps(
    'train.sample_steps', schedule.sample_steps, assembled.built.schedule, c
  )
  grids = (
    f'sample grids: {schedule.num_samples:,} images every '
    f'{schedule.sample_every_steps:,} steps'
  )
  if most is None:
    return grids
  steps = f'all {most:,} steps of the sampler'
  if schedule.sample_steps is not None:
    steps = f'{schedule.sample_steps:,} of the {most:,} steps of the sampler'
  return f'{grids}, in {steps} (train.sample_steps)'


def _built(c, assembled):
  """Returns the stage, with the sampler that draws the grids."""
  steps = assembled.schedule.sample_steps
  if steps is None:
    return assembled.built
  sampler_section.check_steps(
    'train.sample_steps', steps, assembled.built.schedule, c
  )
  return stage.stage(c, sampler_steps=steps)


def _levels_of(images):
  """Returns images uint8, also of arrays in [-1, 1]."""
  if images.dtype == np.uint8:
    return images
  return np.asarray(pixels.to_uint8(images))


def _levels(assembled):
  """Returns the augmentation levels that the grid shows."""
  lowres = assembled.built.lowres
  if lowres.augment != 'noise':
    return [0.0]
  both = (assembled.evaluation.level, lowres.max_level)
  nearest = (lowres_conditioning.nearest_level(x, lowres) for x in both)
  return list(dict.fromkeys(nearest))


def _augmentation_keys(keys):
  """Returns [B] keys for the noise of the low-res images, as a cascade's."""
  return jax.vmap(lambda key: jax.random.fold_in(key, AUGMENT))(keys)
