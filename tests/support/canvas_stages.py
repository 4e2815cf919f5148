"""Stages that draw canvases with networks of a few weights, and the truth."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np

from cdm.diffusion import grids, samplers, schedules
from cdm.diffusion.parameterization import predict
from cdm.methods.canvas_drawing import Views
from cdm.methods.diffusion import Objective, Sampling, diffusion
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import resize
from cdm.ops.noise_plane import NoisePlane
from cdm.sampling import canvas_upscaler
from cdm.sampling.drawing_stage import Stage

SCHEDULE = schedules.cosine(100)
FACTOR = 2
# Pixels that `convolutions` sees around a pixel are 5; in low-res pixels it is
MARGIN = 3


def network(apply, **fields):
  """-> what stands for a network that predicts x_0."""
  return types.SimpleNamespace(
    apply=lambda _, x, logsnr, **given: apply(x, logsnr, given),
    num_classes=None,
    null_class=False,
    lowres_level=fields.get('lowres_level', False),
    learned_variance=False,
    condition_on='logsnr',
    parameter_dtype=lambda name: jnp.float32,
  )


def convolve(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@functools.cache
def kernels():
  rng = np.random.default_rng(1)
  shapes = (3, 3, 6, 8), (3, 3, 8, 8), (3, 3, 8, 3)
  return [
    (rng.standard_normal(s) * 1.5 / np.sqrt(np.prod(s[:3]))).astype(np.float32)
    for s in shapes
  ]


def convolutions(x, logsnr, given):
  """Convolves at full and at half size; no statistic over space."""
  first, middle, last = kernels()
  h = jnp.concatenate([x, given['lowres']], axis=-1)
  h = jnp.tanh(convolve(h, first) + 0.1 * jnp.tanh(logsnr)[:, None, None, None])
  b, height, width, c = h.shape
  low = h.reshape(b, height // 2, 2, width // 2, 2, c).mean(axis=(2, 4))
  low = jnp.tanh(convolve(low, middle))
  h = h + low.repeat(2, axis=1).repeat(2, axis=2)
  return given['lowres'] + 0.5 * convolve(h, last)


def sampling(run=samplers.ddim, steps=2, **options):
  grid = grids.trailing(SCHEDULE, num_steps=steps)
  return Sampling(run=run, grid=grid, **options)


def method(net, *, size=32, lowres=None, sampled=None, residual_scale=None):
  """-> `Method` of a diffusion model that predicts x_0."""
  return diffusion(
    net,
    SCHEDULE,
    Objective(prediction='x_0', residual_scale=residual_scale),
    sampled or sampling(),
    image_size=size,
    lowres=lowres or Lowres(size=size // FACTOR),
  )


def stage(
  net=None,
  *,
  size=32,
  factor=FACTOR,
  margin=MARGIN,
  sampled=None,
  residual_scale=None,
  augment='none',
  **fields,
):
  """-> a `Stage` of a diffusion model."""
  net = net or network(convolutions, lowres_level=augment == 'noise')
  lowres = Lowres(size=size // factor, augment=augment)
  made = method(
    net,
    size=size,
    lowres=lowres,
    sampled=sampled,
    residual_scale=residual_scale,
  )
  assert made.sample is not None
  return Stage(
    name='photo',
    image_size=size,
    sample=made.sample,
    params={'unused': jnp.zeros(())},
    lowres=lowres,
    margin=margin,
    tune=made.tune,
    canvas=made.canvas,
    **fields,
  )


def photo(height, width, seed=0):
  """-> low-res picture [1, h, w, 3], uint8, smooth with some noise."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  waves = np.stack(
    [np.sin(y / 5 + c) * np.cos(x / 7 - c) for c in range(3)], -1
  )
  levels = 128 + 80 * waves + 20 * rng.standard_normal(waves.shape)
  return np.clip(levels, 0, 255).astype(np.uint8)[None]


def whole(made, sampled, images, unit, *, seed=0, number=0):
  """Draws pictures as one piece: [N, h, w, 3] -> [N, H, W, 3].

  The network sees the whole canvas at once, and the sampler is one program.
  """
  x = (2 * images.astype(np.float32) - 255) / 255
  height, width = (n * FACTOR for n in x.shape[1:3])
  up = np.asarray(resize.resize(x, (height, width), method='bicubic'))
  size = [max(made.image_size, -(-n // unit) * unit) for n in (height, width)]
  up = padded(up, *size)
  low = padded(x, *(n // FACTOR for n in size))

  def noise(use, j):
    plane = NoisePlane(seed, number, (0, use, j))
    return plane.rectangle(0, 0, *size)[None]

  steps = np.stack([noise(canvas_upscaler.STEP, j) for j in range(5)])
  views = Views(low, up, np.zeros(len(x), np.float32), None)

  @jax.jit
  def run(x_T, steps):
    def denoise(x_t, logsnr):
      found = made.canvas.evaluate(made.params, views, x_t, logsnr, None)
      x_0 = found['x_0']
      return predict('x_0', x_0, x_t, logsnr=logsnr)

    return sampled.run(
      denoise, x_T, logsnrs=sampled.grid, noise=lambda j: steps[j]
    )

  drawn = run(noise(canvas_upscaler.START, 0), steps)
  return np.asarray(drawn)[:, :height, :width]


def padded(x, height, width):
  """Reflects pictures beyond their right and lower borders."""
  more = (height - x.shape[1], width - x.shape[2])
  return np.pad(x, ((0, 0), (0, more[0]), (0, more[1]), (0, 0)), 'symmetric')
