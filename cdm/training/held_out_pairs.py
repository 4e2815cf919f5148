"""Super-resolves a few held-out images in training, and scores them.

Each image is shrunk, drawn anew by the EMA parameters, without noise in its
low-res input, and compared with the original; so is its bicubic upsampling. The
images and the noise are the same in every evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cdm.config import evaluated_images, stage
from cdm.config.loader import ConfigDict
from cdm.distributed import collectives, compiler_options, device_mesh
from cdm.methods import lowres_conditioning
from cdm.ops import keys as ops_keys
from cdm.ops import pair_scores, pixels, resize, value_scores
from cdm.training import label_check, program
from cdm.training.eval_section import (
  CONSISTENCY,
  PREFIX,
  PSNR,
  SSIM,
  SSIM_SIDE,
)


def make_held_out_pairs(
  c: ConfigDict, assembled: program.Program
) -> Callable[[Any, Any, Callable[[], bool]], dict[str, float] | None]:
  """Reads the images and builds the evaluation, see `hooks.Evaluator.run`.

  Args:
    c: config of a super-resolution stage.
    assembled: its program; the images are split over its mesh.

  Returns:
    The function. It returns PSNR (over the images whose PSNR is finite, as in
    `cdm evaluate`), SSIM unless the images are too small, and consistency; and
    the same of bicubic upsampling, with `_bicubic` after the name.

  Raises:
    ValueError: the evaluation data cannot be used.
  """
  options, lowres = assembled.evaluation, assembled.built.lowres
  assert lowres is not None  # `make_evaluators` asks for a low-res input

  def read_pairs():
    count, read = evaluated_images.open_up_to(c, options.num_pairs)
    images, labels, there = read(range(count))
    return images[there], labels[there]

  images, labels = collectives.arrays_from_first(read_pairs)
  if not len(images):
    raise ValueError(
      'None of the evaluation images is large enough for '
      'config.eval.num_pairs; use other data, or --config.eval.num_pairs=0.'
    )
  classes = assembled.built.net.num_classes
  label_check.check_range(labels, classes, 'evaluation data')
  # A microbatch is as much as the memory of the devices is sure to hold.
  part = assembled.schedule.batch_size // assembled.schedule.accumulation
  size = device_mesh.padded_batch_size(min(part, len(images)), assembled.mesh)
  draw = _make_draw(c, assembled)
  bicubic: dict[str, np.ndarray] = {}

  def run(params, ema_params, stop_asked):
    del params
    drawn, low = [], []
    for first in range(0, len(images), size):
      if stop_asked():
        return None
      # The last numbers are repeated, so that all devices draw equally many.
      numbers = np.minimum(np.arange(first, first + size), len(images) - 1)
      label = labels[numbers] if classes is not None else None
      for found, x in zip(
        (drawn, low),
        draw(ema_params, images[numbers], label, numbers),
        strict=True,
      ):
        found.append(np.asarray(x))
    drawn, low = (np.concatenate(x)[: len(images)] for x in (drawn, low))
    scores = _scores(drawn, images, low, lowres.downsample)
    if not bicubic:
      enlarge = resize.resize if low.dtype != np.uint8 else resize.resize_uint8
      up = np.asarray(enlarge(low, images.shape[1:3]))
      bicubic.update(_scores(up, images, low, lowres.downsample))
    return _means(scores, bicubic)

  return run


def _make_draw(c, assembled):
  """Returns jitted (params, originals, labels, numbers) -> (drawn, low-res).

  All images are uint8, or float32 in [-1, 1] of arrays, and whole on every
  device.
  """
  mesh, lowres = assembled.mesh, assembled.built.lowres
  sample = stage.stage(
    c, sampler_steps=assembled.evaluation.sampler_steps
  ).sample_in_training
  assert sample is not None  # a classifier has no low-res input
  seed = program.seed_of(c, program.PAIRS_SEED)
  boxed = assembled.built.boxes(assembled.state.ema_params)

  def draw(params, originals, labels, numbers):
    originals = device_mesh.split_batch(originals, mesh)
    z_0 = lowres_conditioning.downsample(pixels.of_batch(originals), lowres)
    keys = ops_keys.image_keys(seed, numbers)
    x = sample(
      boxed(params),
      keys=device_mesh.split_batch(keys, mesh),
      label=labels,
      lowres=z_0,
    )
    if assembled.built.is_array:
      return jnp.clip(x, -1.0, 1.0), z_0
    return pixels.to_uint8(x), pixels.to_uint8(z_0)

  return jax.jit(
    device_mesh.in_mesh(draw, mesh),
    out_shardings=device_mesh.replicated(mesh),
    compiler_options=compiler_options.for_devices(mesh.devices.flat),
  )


def _scores(
  images: np.ndarray, originals: np.ndarray, low: np.ndarray, downsample: str
) -> dict[str, np.ndarray]:
  """Returns {name: float64 [N]}, one score per image."""
  if images.dtype != np.uint8:
    scores = value_scores.of_pairs(images, originals, low, method=downsample)
    return {f'{PREFIX}{name}': value for name, value in scores.items()}
  scores = {PSNR: pair_scores.psnr(images, originals)}
  if images.shape[1] >= SSIM_SIDE:
    scores[SSIM] = pair_scores.ssim(images, originals)
  scores[CONSISTENCY] = pair_scores.consistency(images, low, method=downsample)
  return scores


def _means(
  scores: dict[str, np.ndarray], bicubic: dict[str, np.ndarray]
) -> dict[str, float]:
  """Returns the mean scores, each over the images where both are finite."""
  means = {}
  for name, values in scores.items():
    finite = np.isfinite(values) & np.isfinite(bicubic[name])
    for suffix, x in (('', values), ('_bicubic', bicubic[name])):
      mean = x[finite].mean() if finite.any() else np.nan
      means[f'{name}{suffix}'] = float(mean)
  return means
