"""Draws the grid of samples that a run writes while it trains."""

import functools

import jax
import numpy as np

from cdm.config import datasets
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


def make_grid_sampler(c, made):
  """-> draw(ema_params) -> uint8 grid at fixed seeds, labels and low-res.

  A base model shows its samples; a super-resolution stage shows, for held-out
  images, rows of low-res input, sample and original.

  Args:
    c: ConfigDict of one stage.
    made: its program.Program; the images are shared out over its mesh.
  """
  n = c.train.num_samples
  if not n or not c.train.sample_every_steps:
    return None
  built, mesh = made.built, made.mesh
  columns = min(GRID_COLUMNS, n)
  size = c.pipeline.image_size
  # Filled up, so that every device draws as many.
  numbers = np.resize(np.arange(n), device_mesh.padded(n, mesh))
  labels = None
  if built.net.num_classes is not None:
    labels = numbers.astype(np.int32) % built.net.num_classes
  seed = program.seed_of(c, program.GRID_SEED)
  places = jax.tree.map(lambda leaf: leaf.sharding, made.state.ema_params)
  jit = functools.partial(
    jax.jit,
    out_shardings=device_mesh.replicated(mesh),
    compiler_options=compiler_options.forward(mesh.devices.flat),
  )

  def sample(params, labels, **given):
    keys = ops_keys.image_keys(seed, numbers)
    return pixels.to_uint8(
      built.method.sample(
        partitioning.gather_over_fsdp(params, places),
        keys=device_mesh.split_batch(keys, mesh),
        label=labels,
        **given,
      )
    )

  if built.lowres is None:
    draw_base = jit(sample)

    def draw(params):
      x = np.asarray(draw_base(params, labels))[:n]
      return pixels.grid(x, columns)

    return draw

  @jit
  def draw_upscaled(params, originals, labels):
    originals = device_mesh.split_batch(originals, mesh)
    z_0 = lowres_conditioning.downsample(
      pixels.to_float(originals), built.lowres
    )
    low = resize.resize(z_0, size, method='nearest')
    return pixels.to_uint8(low), sample(params, labels, lowres=z_0)

  # Read now: that they cannot be read must not come out after hours.
  originals, labels = datasets.read_held_out(c, n)(range(n))
  filled = originals[numbers]
  labels = None if built.net.num_classes is None else labels[numbers]

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
