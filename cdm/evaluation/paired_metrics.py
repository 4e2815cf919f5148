"""Scores images against their originals by the metrics of pairs.

`evaluate_pairs` takes streams of images, `evaluate_paths` files of images. Both
return one JSON-able row, which states the convention of every number. If the
low-res inputs are given, their bicubic upsampling is scored as a baseline, on
the same images: an identical pair, whose PSNR is infinite, is left out of the
mean PSNR of both, and counted.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from cdm.data import image_set
from cdm.distributed import collectives
from cdm.evaluation import metrics_table, shared_listing
from cdm.evaluation.lpips_scorer import LpipsScorer
from cdm.evaluation.metrics import bootstrap
from cdm.evaluation.metrics.measure import Pair
from cdm.evaluation.row_types import PairMeans, PairRow
from cdm.ops import resize

# With more images the confidence interval is narrower than the differences
# between conventions of a metric, so none is computed.
MOST_FOR_INTERVALS = 5000

Scores = dict[str, float | None]  # {metric: value} of one pair


def evaluate_pairs(
  samples: Iterable[np.ndarray],
  references: Iterable[np.ndarray],
  *,
  lowres: Iterable[np.ndarray] | None = None,
  downsample: str = 'bicubic',
  perceptual: LpipsScorer | None = None,
) -> PairRow:
  """Scores images against their originals, one by one.

  Args:
    samples: iterable of uint8 [N, H, W, 3], the images to score.
    references: iterable of uint8 [N, H, W, 3], their originals in the same
      order; the batch sizes may differ from those of the samples.
    lowres: iterable of uint8 [N, h, w, 3], the inputs the samples were made
      from, or None. Adds consistency and the bicubic baseline.
    downsample: filter that the low-res images were made with.
    perceptual: computes `lpips`; None leaves it out.

  Returns:
    The row. Its intervals are those of the means over images, by bootstrap,
    and are given for 2 to 5,000 images.

  Raises:
    ValueError: streams of different length, images of different sizes, or
      arrays that are not uint8 [N, H, W, 3].
  """
  streams = dict(samples=samples, references=references)
  if lowres is not None:
    streams['lowres'] = lowres
  scored = _score(streams, downsample, perceptual)
  return combine_scores(*scored, downsample, perceptual)


def _score(
  streams: Mapping[str, Iterable[np.ndarray]],
  downsample: str,
  perceptual: LpipsScorer | None,
) -> tuple[list[Scores], list[Scores], dict[str, tuple[int, ...]] | None]:
  """Returns (scores of every pair, those of bicubic, shapes of a pair)."""
  scores, baseline, shapes = [], [], None
  for group in _lockstep(streams):
    shapes = _same_shapes(group, shapes)
    reference, low = group['references'], group.get('lowres')
    scores.append(
      score(group['samples'], reference, low, downsample, perceptual)
    )
    if low is not None:
      baseline.append(score_bicubic(reference, low, downsample, perceptual))
  return scores, baseline, shapes


def score_bicubic(
  reference: np.ndarray,
  low: np.ndarray,
  downsample: str,
  perceptual: LpipsScorer | None,
) -> Scores:
  """Returns the scores of a low-res image after bicubic upsampling.

  Args:
    reference: original, uint8 [H, W, 3].
    low: low-res image, uint8 [h, w, 3].
    downsample, perceptual: see `evaluate_pairs`.
  """
  up = np.asarray(resize.resize_uint8(low, reference.shape[:2]))
  return score(up, reference, low, downsample, perceptual)


def combine_scores(
  scores: Sequence[Scores],
  baseline: Sequence[Scores],
  shapes: Mapping[str, Sequence[int]] | None,
  downsample: str,
  perceptual: LpipsScorer | None,
) -> PairRow:
  """Combines the scores of all pairs into one row.

  Args:
    scores: [{metric: value}], in the order of the pairs.
    baseline: the scores of bicubic upsampling, or [].
    shapes: {'samples': (H, W, ...), 'lowres': (h, w, ...)}, or None if there
      are no pairs.
    downsample, perceptual: see `evaluate_pairs`.

  Returns:
    The row, see `evaluate_pairs`. The mean of a metric, and that of bicubic,
    are over the same images: those in which both are finite. `counts` has
    their number, and `identical_pairs` how many PSNRs are infinite.

  Raises:
    ValueError: there are no pairs.
  """
  if not scores or shapes is None:
    raise ValueError('There is nothing to evaluate: the streams are empty.')
  columns = [scores, baseline] if baseline else [scores]
  common = {name: common_images(name, columns) for name in scores[0]}
  measures = {name: metrics_table.PAIRS[name].measure for name in scores[0]}
  size = shapes['samples'][:2]
  row: dict[str, Any] = {
    'n': len(scores),
    'image_size': list(size),
    **_means(scores, common),
    'counts': {name: len(images) for name, images in common.items()},
    'left_out': {
      name: f'its windows need images of {measure.least_side} pixels, and '
      f'these are {size[1]}x{size[0]}'
      for name, measure in measures.items()
      if min(size) < measure.least_side
    },
    'intervals': _intervals(scores, common),
    'conventions': {
      name: measure.describe(downsample, perceptual)
      for name, measure in measures.items()
    },
  }
  if baseline:
    row['lowres_size'] = list(shapes['lowres'][:2])
    row['bicubic'] = _means(baseline, common)
  return cast(PairRow, row)


def common_images(name: str, columns: Sequence[Sequence[Scores]]) -> list[int]:
  """Returns the indices of the images whose score is finite in every column.

  Args:
    name: name of the metric.
    columns: the scores of all images, for each method that is compared.
  """
  return [
    i
    for i, rows in enumerate(zip(*columns, strict=True))
    if all(_is_finite(row[name]) for row in rows)
  ]


def _is_finite(value: float | None) -> bool:
  return value is not None and bool(np.isfinite(value))


def evaluate_paths(
  samples: str | os.PathLike,
  reference: str | os.PathLike,
  *,
  lowres: str | os.PathLike | None = None,
  downsample: str = 'bicubic',
  perceptual: LpipsScorer | None = None,
  max_value: float | None = None,
) -> PairRow:
  """Scores folders, .npz archives or single image files.

  Files are paired by name without the suffix, so `a/001.png` belongs to
  `b/001.jpg`. The images of an archive have no names and are paired by
  position, and so are two single files. The processes share the pairs among
  themselves, and all return the same row.

  Args:
    samples, reference, lowres: paths, see `image_set.load_images`.
    downsample, perceptual: see `evaluate_pairs`.
    max_value: see `image_set.load_images`.

  Returns:
    The row of `evaluate_pairs`, with the given paths added.

  Raises:
    ValueError: an error of `image_set.load_images` or `evaluate_pairs`, or an
      image without a partner, which the message names.
  """
  paths = dict(samples=samples, reference=reference, lowres=lowres)
  paths = {k: str(path) for k, path in paths.items() if path is not None}
  sets = {
    k: image_set.load_images(
      path, max_value=max_value, listing=shared_listing.list_folder(path)
    )
    for k, path in paths.items()
  }
  streams = {
    name: image_set.stream(images, _share(_order(sets['samples'], images)))
    for name, images in sets.items()
  }
  streams['references'] = streams.pop('reference')
  parts = collectives.gather_objects(_score(streams, downsample, perceptual))
  scores, baseline, shapes = zip(*parts, strict=True)
  shapes = [found for found in shapes if found]
  for found in shapes:
    if found != shapes[0]:
      raise ValueError(_unlike(shapes[0], found))
  row = combine_scores(
    collectives.in_turn(scores),
    collectives.in_turn(baseline),
    shapes[0] if shapes else None,
    downsample,
    perceptual,
  )
  return {**paths, **row}


def _share(order: Sequence[int]) -> list[int]:
  """Returns this process's part of the indices of all pairs."""
  return [order[i] for i in collectives.local_indices(len(order))]


def _order(samples: image_set.Images, other: image_set.Images) -> list[int]:
  """Returns the indices of `other` in the order of the samples."""
  names, others = samples.names, other.names
  two_files = samples.path.is_file() and other.path.is_file()
  if names is None or others is None or two_files:
    if samples.count != other.count:
      raise ValueError(
        f'{samples.path} holds {samples.count} images and {other.path} '
        f'{other.count}; an archive is paired by position, so both must hold '
        'the same number.'
      )
    return list(range(other.count))
  for images in (samples, other):
    image_set.check_names(images)
  position = {name: i for i, name in enumerate(others)}
  both = (samples, names), (other, others)
  for (one, ours), (partners, theirs) in (both, both[::-1]):
    lonely = sorted({*ours} - {*theirs})
    if lonely:
      raise ValueError(
        f'{lonely[0]!r} of {one.path} has no partner in {partners.path} '
        f'({len(lonely)} of {one.count} have none); images are paired by '
        'name without suffix, so give both the same names.'
      )
  return [position[name] for name in names]


def _lockstep(
  streams: Mapping[str, Iterable[np.ndarray]],
) -> Iterator[dict[str, np.ndarray]]:
  """Yields {name: uint8 [H, W, 3]}, one image of every stream at a time."""
  end: Any = object()
  singles = [_singles(name, batches) for name, batches in streams.items()]
  for n, group in enumerate(itertools.zip_longest(*singles, fillvalue=end)):
    group = dict(zip(streams, group, strict=True))
    ended = [name for name, image in group.items() if image is end]
    if ended:
      going = [name for name in group if name not in ended]
      raise ValueError(
        f'{" and ".join(ended)} ended after {n} images while '
        f'{" and ".join(going)} went on; give each image its partner.'
      )
    yield group


def _singles(name: str, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """Yields the images of all batches, uint8 [H, W, 3], one by one."""
  for batch in batches:
    batch = np.asarray(batch)
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
      raise ValueError(
        f'{name} gave {batch.dtype} {batch.shape}, but uint8 [N, H, W, '
        '3] is expected. Use pixels.to_uint8 first.'
      )
    yield from batch


def _same_shapes(
  group: Mapping[str, np.ndarray], first: dict[str, tuple[int, ...]] | None
) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a pair, which must be those of the first pair."""
  shapes = {name: image.shape for name, image in group.items()}
  if shapes['samples'] != shapes['references']:
    raise ValueError(
      f'A sample has {image_set.size_of(group["samples"])} pixels but its '
      'reference '
      f'{image_set.size_of(group["references"])}; evaluate images of one '
      'size.'
    )
  if first is not None and shapes != first:
    raise ValueError(_unlike(first, shapes))
  return shapes


def _unlike(first: Mapping, shapes: Mapping) -> str:
  before, after = (
    ', '.join(f'{name} {shape[1]}x{shape[0]}' for name, shape in part.items())
    for part in (first, shapes)
  )
  return (
    f'Images with {before} pixels are followed by some with {after}; '
    'evaluate images of one size.'
  )


def score(
  sample: np.ndarray,
  reference: np.ndarray,
  lowres: np.ndarray | None,
  downsample: str,
  perceptual: LpipsScorer | None,
  metrics: Sequence[str] | None = None,
) -> Scores:
  """Scores one image against its original.

  Args:
    sample, reference: uint8 [H, W, 3].
    lowres: uint8 [h, w, 3], the input the sample was made from, or None.
    downsample, perceptual: see `evaluate_pairs`.
    metrics: names; by default all metrics that the other arguments allow.

  Returns:
    {metric: value}; the value is None if the image is smaller than the window
    of the metric.
  """
  pair = Pair(sample, reference, lowres, downsample, perceptual)
  wanted = metrics
  if wanted is None:
    wanted = [
      name
      for name, metric in metrics_table.PAIRS.items()
      if not metric.needs or getattr(pair, metric.needs) is not None
    ]
  scores: Scores = {}
  for name in wanted:
    measure = metrics_table.PAIRS[name].measure
    fits = min(sample.shape[:2]) >= measure.least_side
    scores[name] = float(measure.function(pair)) if fits else None
  return scores


def _intervals(
  scores: Sequence[Scores], common: Mapping[str, Sequence[int]]
) -> dict[str, list[float]]:
  """Returns {metric: [low, high]}, the 95% interval of every mean.

  A metric of fewer than 2 or more than `MOST_FOR_INTERVALS` images has none.
  """
  return {
    name: list(bootstrap.interval(_of_images(scores, name, images)))
    for name, images in common.items()
    if 2 <= len(images) <= MOST_FOR_INTERVALS
  }


def _of_images(
  scores: Sequence[Scores], name: str, images: Sequence[int]
) -> np.ndarray:
  """Returns the scores of some images, float64 [N]; all of them are finite."""
  return np.asarray([scores[i][name] for i in images], np.float64)


def _means(
  scores: Sequence[Scores], common: Mapping[str, Sequence[int]]
) -> PairMeans:
  """Returns {metric: mean over its images}; None where it has no image.

  JSON has no infinite numbers.
  """
  means: dict[str, Any] = {
    name: float(np.mean(_of_images(scores, name, images))) if images else None
    for name, images in common.items()
  }
  means['identical_pairs'] = sum(row.get('psnr') == np.inf for row in scores)
  for name in common:
    number = metrics_table.PAIRS[name].number
    if number.scale != 1 and means[name] is not None:
      means[f'{name}_{number.unit}'] = means[name] * number.scale
  return cast(PairMeans, means)
