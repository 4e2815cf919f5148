"""Judges images in memory, as `cdm evaluate` judges files."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.data.photographs import array_pictures
from cdm.evaluation import (
  compare_sets,
  image_source,
  metrics_table,
  paired_metrics,
  set_metrics,
)
from cdm.evaluation.extract_features import Gatherer
from cdm.evaluation.image_source import Source
from cdm.evaluation.lpips_scorer import LpipsScorer
from cdm.evaluation.row_types import ImageManifest
from cdm.sampling import picture_rows

Weights = Mapping[str, Any]  # see `Options`
_SETS = metrics_table.SETS
_WEIGHTS = ('features', 'lpips')


class Options(NamedTuple):
  """How images are judged; the arguments of `cdm.api.evaluate`.

  Attributes:
    downsample: filter that made the low-res images.
    few: whether FID is computed of fewer images than it has features.
    kid_size: images per subset of KID; None is the usual number.
    weights: {'features': path, 'lpips': (path, path)}, files of weights in the
      place of those that are downloaded.
  """

  downsample: str = 'bicubic'
  few: bool = False
  kid_size: int | None = None
  weights: Weights | None = None

  def of(self, network: str) -> Any:
    """Returns the weights of a network, None if they are downloaded."""
    return (self.weights or {}).get(network)


def scores(
  sets: Mapping[str, Any],
  metrics: str | Sequence[str] | None,
  options: Options,
) -> dict[str, float]:
  """Computes metrics of pairs and of sets.

  Args:
    sets: {'samples', 'references', 'lowres': pictures or None}; see `rgb8`.
    metrics: names, from `metrics_table`; None is all of pairs that need no
      weights and for which the images are large enough.
    options: how they are judged.

  Returns:
    {name of a number: value}, see `cdm.api.evaluate`.

  Raises:
    ValueError: a metric is unknown or cannot be computed, or the sets do not
      fit each other.
  """
  names = _names(metrics, sets)
  unknown = sorted({*(options.weights or ())} - {*_WEIGHTS})
  if unknown:
    raise ValueError(
      f'weights has {unknown[0]!r}; known are {", ".join(_WEIGHTS)}.'
    )
  images = {k: rgb8(v, k) for k, v in sets.items() if v is not None}
  of_sets = [name for name in names if name in metrics_table.SETS]
  of_pairs = [name for name in names if name in metrics_table.PAIRS]
  found: dict[str, float] = {}
  if of_sets:
    found |= _set_scores(images, of_sets, options)
  if of_pairs:
    found |= _pair_scores(images, of_pairs, options, asked=metrics is not None)
  return found


def _names(metrics, sets):
  """Returns the names of the metrics, checked."""
  if metrics is None:
    names = [
      name
      for name in metrics_table.by_default()
      if metrics_table.PAIRS[name].needs != 'lowres'
      or sets['lowres'] is not None
    ]
  else:
    names = [metrics] if isinstance(metrics, str) else list(metrics)
  known = (*metrics_table.SETS, *metrics_table.PAIRS)
  for name in names:
    if name not in known:
      raise ValueError(
        f'There is no metric {name!r}; known are {", ".join(known)}.'
      )
    of_set, of_pair = _SETS.get(name), metrics_table.PAIRS.get(name)
    if sets['references'] is None and not (of_set and of_set.alone):
      raise ValueError(f'{name} needs references=, the images to compare with.')
    if of_pair and of_pair.needs == 'lowres' and sets['lowres'] is None:
      raise ValueError(f'{name} needs lowres=, the low-res inputs.')
  return names


def rgb8(given: Any, name: str) -> np.ndarray:
  """Returns pictures as metrics take them, uint8 [N, H, W, 3].

  Grey becomes three equal channels, and 16 bits and floats are rounded.

  Args:
    given: see `array_pictures`.
    name: of the argument, for messages.

  Raises:
    TypeError, ValueError: see `array_pictures.taken`; or pictures of several
      sizes, or with transparency.
  """
  if isinstance(given, np.ndarray) and given.dtype == np.uint8:
    if given.ndim == 4 and given.shape[-1] == 3 and given.size:
      return given
  pictures = array_pictures.taken(given).photographs
  if any(one.alpha is not None for one in pictures):
    raise ValueError(
      f'{name} have transparency, which metrics do not know; give RGB pictures.'
    )
  shapes = {one.samples.shape[:2] for one in pictures}
  if len(shapes) > 1:
    some = ' and '.join(f'{w}x{h}' for h, w in sorted(shapes)[:2])
    raise ValueError(f'{name} have {some} pixels; evaluate images of one size.')
  return np.stack([_rgb8(one.samples) for one in pictures])


def _rgb8(samples):
  if samples.dtype == np.uint16:
    # As `image_decoder` makes 8 bits of 16.
    samples = np.floor(samples * (255 / 65535) + 0.5).astype(np.uint8)
  elif samples.dtype == np.float32:
    samples = picture_rows.levels(samples, np.uint8)
  return np.repeat(samples, 3, axis=-1) if samples.shape[-1] == 1 else samples


def _pair_scores(images, names, options, *, asked):
  perceptual = None
  if 'lpips' in names:
    perceptual = LpipsScorer('alex', options.of('lpips'))
  lowres = images.get('lowres')
  row: Any = paired_metrics.evaluate_pairs(
    [images['samples']],
    [images['references']],
    lowres=None if lowres is None else [lowres],
    downsample=options.downsample,
    perceptual=perceptual,
  )
  found: dict[str, float] = {}
  for name in names:
    if name in row['left_out']:
      if asked:
        raise ValueError(f'{name}: {row["left_out"][name]}.')
      continue
    found[name] = _mean(row, name)
    if 'bicubic' in row:
      found[f'bicubic_{name}'] = _mean(row['bicubic'], name)
  return found


def _mean(row, name):
  # The only number that is not finite is the PSNR of equal images.
  return math.inf if row[name] is None else float(row[name])


def _set_scores(images, names, options):
  needed = any(not _SETS[name].alone for name in names)
  reference = compare_sets.Reference(
    'references' if needed else None,
    names,
    source=_source(images['references']) if needed else None,
  )
  row: Any = compare_sets.compare(
    'samples',
    reference,
    Gatherer(options.of('features')),
    set_metrics.MetricChoice(names, options.few, options.kid_size),
    source=_source(images['samples']),
  )
  numbers = [number for name in names for number in _SETS[name].numbers]
  both = [key for name in numbers for key in (name, f'{name}_std')]
  return {key: float(row[key]) for key in both if row.get(key) is not None}


def _source(images: np.ndarray) -> Source:
  """Returns an array as a set of images."""
  digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
  recipe: ImageManifest = {
    'data': 'an array',
    'count': len(images),
    'image_size': list(images.shape[1:3]),
    'fingerprint': digest,
  }
  read = image_source.read_in_parallel(lambda n: images[n], len(images))
  return Source(len(images), read, recipe, {}, digest)
