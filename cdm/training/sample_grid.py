"""Draws the grid of sample images that a run writes while it trains."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cdm.config import datasets
from cdm.config.loader import ConfigDict
from cdm.distributed import (
  compiler_options,
  device_mesh,
  partitioning,
)
from cdm.methods import lowres_conditioning
from cdm.ops import keys as ops_keys
from cdm.ops import pixels, resize
from cdm.training import program

GRID_COLUMNS = 8


def make_grid_sampler(
  c: ConfigDict, assembled: program.Program
) -> Callable[[Any], np.ndarray] | None:
  """Builds the function that draws a grid of samples.

  Seeds, labels and low-res images are the same in every grid. The grid of a
  base model shows samples; that of a super-resolution stage shows the low-res
  input, the sample and the original of held-out images.

  Args:
    c: config of one stage.
    assembled: its program; the images are split over its mesh.

  Returns:
    draw(ema_params) -> uint8 [H, W, 3], or None if the config asks for no
    grids.
  """
  n = c.train.num_samples
  if not n or not c.train.sample_every_steps:
    return None
  built, mesh = assembled.built, assembled.mesh
  sample_images = built.method.sample
  assert sample_images is not None, 'a classifier draws no grids'
  columns = min(GRID_COLUMNS, n)
  size = c.pipeline.image_size
  # The indices are repeated up to a multiple of the devices, so that all of
  # them draw equally many images.
  indices = np.resize(np.arange(n), device_mesh.padded_batch_size(n, mesh))
  labels = None
  if built.net.num_classes is not None:
    labels = indices.astype(np.int32) % built.net.num_classes
  seed = program.seed_of(c, program.GRID_SEED)
  shardings = jax.tree.map(
    lambda leaf: leaf.sharding, assembled.state.ema_params
  )
  jit = functools.partial(
    jax.jit,
    out_shardings=device_mesh.replicated(mesh),
    compiler_options=compiler_options.forward(mesh.devices.flat),
  )

  def sample(params, labels, **conditioning):
    keys = ops_keys.image_keys(seed, indices)
    return pixels.to_uint8(
      sample_images(
        partitioning.gather_over_fsdp(params, shardings),
        keys=device_mesh.split_batch(keys, mesh),
        label=labels,
        **conditioning,
      )
    )

  if built.lowres is None:
    draw_base = jit(sample)

    def draw(params):
      x = np.asarray(draw_base(params, labels))[:n]
      return pixels.grid(x, columns)

    return draw

  lowres = built.lowres

  @jit
  def draw_upscaled(params, originals, labels):
    originals = device_mesh.split_batch(originals, mesh)
    z_0 = lowres_conditioning.downsample(pixels.to_float(originals), lowres)
    low = resize.resize(z_0, size, method='nearest')
    return pixels.to_uint8(low), sample(params, labels, lowres=z_0)

  # The data is read now, so that unreadable data is refused at the start and
  # not after hours.
  originals, labels = datasets.read_held_out(c, n)(range(n))
  filled = originals[indices]
  labels = None if built.net.num_classes is None else labels[indices]

  def draw(params):
    low, x = (np.asarray(y)[:n] for y in draw_upscaled(params, filled, labels))
    rows = []
    for start in range(0, n, columns):
      part = slice(start, start + columns)
      for row in (low, x, originals):
        row = row[part]
        blank = np.full((columns - len(row), *row.shape[1:]), 255, np.uint8)
        rows.append(np.concatenate([row, blank]))
    return pixels.grid(np.concatenate(rows), columns)

  return draw
