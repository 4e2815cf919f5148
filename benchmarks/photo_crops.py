"""Judges drawn details: crops of held-out photographs beside the originals.

Crops of 64 pixels are taken at the same places of the originals, of bicubic
enlargements, of the mean and of drawn pictures. The Fréchet distance of their
features from those of the originals says how far they look like photographs;
the power at high frequencies says how much of their texture is there.
"""

import numpy as np
import photo_sets
from photo_enlarger import Enlarger, How
from photo_features import MobileNet
from photo_judged import Judged

from cdm.data import low_res_inputs
from cdm.evaluation.metrics import fid
from cdm.ops import pixels, resize
from cdm.sampling.enlarged_jobs import DETAIL

CROP = 64  # pixels
_STRIDE = 32
MOST_OF_BICUBIC = 0.5  # of its distance
HIGH = (0.25, 0.5)  # cycles per pixel
MOST_SEAM = 1.0  # grey levels between windows of 256 and of 1024 pixels


def judge(
  enlarger: Enlarger,
  pairs: list[photo_sets.Pair],
  network: MobileNet,
  judged: Judged,
) -> None:
  """Adds the lines of a stage that draws details over its mean.

  Args:
    enlarger: the stage.
    pairs: held-out photographs.
    network: what gives the features.
    judged: what they are added to.
  """
  made = {
    'originals': [pair.original for pair in pairs],
    'bicubic': [_levels(photo_sets.bicubic(pair.low)) for pair in pairs],
    'the mean': [_drawn(enlarger, pair, 0.0) for pair in pairs],
    f'detail {DETAIL:g}': [_drawn(enlarger, pair, DETAIL) for pair in pairs],
    'detail 1': [_drawn(enlarger, pair, 1.0) for pair in pairs],
  }
  distances = _add_distances(made, network, judged)
  most = min(MOST_OF_BICUBIC * distances['bicubic'], distances['the mean'])
  judged.add(
    f'crops of detail 1: distance {distances["detail 1"]:.3f}, at most half of '
    f"bicubic's and that of the mean: {most:.3f}",
    distances['detail 1'] <= most,
    measure='crop_distance',
    value=distances['detail 1'],
    most=most,
  )
  _add_consistency(made, pairs, judged)
  _add_texture(made, judged)
  _add_seam(enlarger, pairs[0], judged)


def _levels(x):
  return np.asarray(pixels.to_uint8(x))


def _drawn(enlarger, pair, detail):
  return _levels(enlarger(pair.low, low_res_inputs.CLEAN, How(detail=detail)))


def _crops(images):
  """Cuts images into squares that overlap by half: uint8 [N, 64, 64, 3]."""
  return np.concatenate(
    [
      np.lib.stride_tricks.sliding_window_view(x, (CROP, CROP), axis=(0, 1))[
        ::_STRIDE, ::_STRIDE
      ]
      .reshape(-1, 3, CROP, CROP)
      .transpose(0, 2, 3, 1)
      for x in images
    ]
  )


def _add_distances(made, network, judged):
  """Adds the distances of crops, and returns them by name."""
  found = {
    name: fid.moments(network(_crops(images))) for name, images in made.items()
  }
  truth = found.pop('originals')
  distances = {}
  for name, one in found.items():
    distances[name] = fid.fid(
      one.mean, one.covariance, truth.mean, truth.covariance
    )
    judged.add(
      f'distance of {one.count:,} crops of {name} from those of the originals: '
      f'{distances[name]:.3f}',
      None,
      measure='distance',
      of=name,
      value=distances[name],
      crops=one.count,
    )
  return distances


def _add_consistency(made, pairs, judged):
  """Adds how far results, shrunk again, are from their inputs."""
  values = {
    name: 1e5
    * float(
      np.mean(
        [_inconsistency(x, p.low) for x, p in zip(images, pairs, strict=True)]
      )
    )
    for name, images in made.items()
    if name != 'originals'
  }
  for name, value in values.items():
    ok = None if name == 'bicubic' else value <= values['bicubic']
    judged.add(
      f'consistency of {name}: {value:.2f}e-5',
      ok,
      measure='consistency',
      of=name,
      value=value,
    )


def _inconsistency(image, low):
  """Returns the mean squared error of an image that is shrunk, in [0, 1]."""
  shrunk = resize.resize_uint8(image, low.shape[:2], method='bicubic')
  gap = np.asarray(shrunk, float) - low
  return np.mean(np.square(gap / 255.0))


def _add_texture(made, judged):
  """Adds the power at high frequencies beside that of the originals."""
  truth = _high_power(made['originals'])
  for name, images in made.items():
    value = _high_power(images) / truth
    judged.add(
      f'power of {name} at {HIGH[0]:g} to {HIGH[1]:g} cycles per pixel: '
      f'{value:.3f} of that of the originals',
      None,
      measure='texture',
      of=name,
      value=value,
    )


def _high_power(images):
  """Returns the mean power of rows and columns at high frequencies."""
  total, count = 0.0, 0
  first, last = (round(f * CROP) for f in HIGH)
  window = np.hanning(CROP + 1)[:-1]
  for image in images:
    grey = image.mean(axis=-1)
    for x in (grey, grey.T):
      rows = x[:, : x.shape[1] // CROP * CROP].reshape(-1, CROP)
      rows = (rows - rows.mean(axis=1, keepdims=True)) * window
      power = np.abs(np.fft.rfft(rows)[:, first : last + 1]) ** 2
      total, count = total + power.sum(), count + power.size
  return total / count


def _add_seam(enlarger, pair, judged):
  """Adds how far the numbers depend on the size of windows."""
  small, large = (
    enlarger(pair.low, low_res_inputs.CLEAN, How(detail=1.0, window=window))
    for window in (256, 1024)
  )
  value = 127.5 * float(np.abs(small - large).max())
  judged.add(
    f'windows of 256 and of 1024 pixels differ by up to {value:.3f} levels',
    value <= MOST_SEAM,
    measure='seam',
    value=value,
  )
