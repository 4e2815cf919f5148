"""Pairs of pictures -> metrics -> one row that json.dumps takes.

`evaluate_pairs` takes streams of images, `evaluate_paths` the files that hold
them. Every number stands beside its convention, and where the low-res inputs
are given, bicubic upsampling of them is scored as the baseline.
"""

import itertools

import numpy as np

from cdm.data import image_set
from cdm.distributed import collectives
from cdm.evaluation.metrics import bootstrap, consistency, distortion
from cdm.ops import resize

# Above it the interval is narrower than what the conventions differ by.
MOST_FOR_INTERVALS = 5000


def evaluate_pairs(
  samples,
  references,
  *,
  lowres=None,
  downsample='bicubic',
  perceptual=None,
):
  """Scores pictures against their originals, one by one.

  Args:
    samples: iterable of uint8 [N, H, W, 3], the pictures to judge.
    references: iterable of uint8 [N, H, W, 3], their originals in the same
      order; batches may be cut elsewhere.
    lowres: None, or iterable of uint8 [N, h, w, 3], what the samples were
      made from. Adds consistency and the bicubic baseline.
    downsample: filter that the low-res images were made with.
    perceptual: lpips_scorer.LpipsScorer; adds `lpips`.

  Returns:
    A dict of plain numbers: n, image_size, psnr, psnr_y, ssim, ssim_gaussian
    and ms_ssim (None if the images are smaller than their windows),
    identical_pairs, intervals (95% of the mean over images, by bootstrap, for
    2 to 5,000 images), conventions; with lowres also lowres_size, consistency,
    consistency_1e-5 (the units of [SR3] tab. 1) and `bicubic`, the same scores
    of the baseline. psnr is None if a pair is identical, since that one is
    infinite.

  Raises:
    ValueError: streams of different length, pictures of different sizes, or
      arrays that are not uint8 [N, H, W, 3].
  """
  streams = dict(samples=samples, references=references)
  if lowres is not None:
    streams['lowres'] = lowres
  scored = _score(streams, downsample, perceptual)
  return row_of(*scored, downsample, perceptual)


def _score(streams, downsample, perceptual):
  """-> (a row of scores per pair, the same of bicubic, shapes of a pair)."""
  scores, baseline, shapes = [], [], None
  for group in _lockstep(streams):
    shapes = _same_shapes(group, shapes)
    reference, low = group['references'], group.get('lowres')
    scores.append(
      score(group['samples'], reference, low, downsample, perceptual)
    )
    if low is not None:
      baseline.append(bicubic_of(reference, low, downsample, perceptual))
  return scores, baseline, shapes


def bicubic_of(reference, low, downsample, perceptual):
  """-> scores of the low-res image brought back by bicubic upsampling."""
  up = np.asarray(resize.resize_uint8(low, reference.shape[:2]))
  return score(up, reference, low, downsample, perceptual)


def row_of(scores, baseline, shapes, downsample, perceptual):
  """Scores of all pairs -> the row.

  Args:
    scores: [{metric: value}], in the order of the pairs.
    baseline: the same of bicubic upsampling, or [].
    shapes: {'samples': (H, W, ...), 'lowres': (h, w, ...)}.
    downsample, perceptual: see `evaluate_pairs`.

  Returns:
    See `evaluate_pairs`.
  """
  if not scores:
    raise ValueError('There is nothing to evaluate: the streams are empty.')
  row = {
    'n': len(scores),
    'image_size': list(shapes['samples'][:2]),
    **_means(scores),
    'intervals': _intervals(scores),
    'conventions': dict(distortion.CONVENTIONS),
  }
  if perceptual is not None:
    row['conventions']['lpips'] = perceptual.convention
  if baseline:
    row['lowres_size'] = list(shapes['lowres'][:2])
    row['bicubic'] = _means(baseline)
    row['conventions']['consistency'] = consistency.convention(downsample)
  return row


def evaluate_paths(
  samples, reference, *, lowres=None, downsample='bicubic', perceptual=None
):
  """`evaluate_pairs` of folders, .npz archives or single pictures.

  Files are paired by name without the suffix, so `a/001.png` belongs to
  `b/001.jpg`; an archive has no names and pairs by position, and so do two
  single pictures.

  Args:
    samples, reference, lowres: paths, see `load_images`.
    downsample, perceptual: as `evaluate_pairs`.

  Returns:
    The row, with the three paths added.

  Raises:
    ValueError: as `load_images` and `evaluate_pairs`, or a picture without a
      partner, which is named.
  """
  paths = dict(samples=samples, reference=reference, lowres=lowres)
  paths = {k: str(path) for k, path in paths.items() if path is not None}
  found = {k: image_set.load_images(path) for k, path in paths.items()}
  streams = {
    name: image_set.stream(pictures, _share(_order(found['samples'], pictures)))
    for name, pictures in found.items()
  }
  streams['references'] = streams.pop('reference')
  parts = collectives.gather_objects(_score(streams, downsample, perceptual))
  scores, baseline, shapes = zip(*parts, strict=True)
  shapes = [found for found in shapes if found]
  for found in shapes:
    if found != shapes[0]:
      raise ValueError(_unlike(shapes[0], found))
  row = row_of(
    _interleaved(scores),
    _interleaved(baseline),
    shapes[0] if shapes else None,
    downsample,
    perceptual,
  )
  return {**paths, **row}


def _share(order):
  """-> this process's part of the pairs."""
  return [order[i] for i in collectives.local_indices(len(order))]


def _interleaved(parts):
  """Undoes `_share`: the rows of all processes, in the order of the pairs."""
  rounds = itertools.zip_longest(*parts)
  return [row for group in rounds for row in group if row is not None]


def _order(samples, other):
  """-> indices of `other` in the order of the samples."""
  unnamed = samples.names is None or other.names is None
  if unnamed or (samples.path.is_file() and other.path.is_file()):
    if samples.count != other.count:
      raise ValueError(
        f'{samples.path} holds {samples.count} pictures and {other.path} '
        f'{other.count}; an archive is paired by position, so both must hold '
        'the same number.'
      )
    return list(range(other.count))
  position = {name: i for i, name in enumerate(other.names)}
  for mine, theirs in ((samples, other), (other, samples)):
    lonely = sorted({*mine.names} - {*theirs.names})
    if lonely:
      raise ValueError(
        f'{lonely[0]!r} of {mine.path} has no partner in {theirs.path} '
        f'({len(lonely)} of {mine.count} have none); pictures are paired by '
        'name without suffix, so give both the same names.'
      )
  return [position[name] for name in samples.names]


def _lockstep(streams):
  """Yields {name: uint8 [H, W, 3]}, one image of every stream at a time."""
  end = object()
  singles = [_singles(name, batches) for name, batches in streams.items()]
  for n, group in enumerate(itertools.zip_longest(*singles, fillvalue=end)):
    group = dict(zip(streams, group, strict=True))
    ended = [name for name, image in group.items() if image is end]
    if ended:
      going = [name for name in group if name not in ended]
      raise ValueError(
        f'{" and ".join(ended)} ended after {n} pictures while '
        f'{" and ".join(going)} went on; give each picture its partner.'
      )
    yield group


def _singles(name, batches):
  for batch in batches:
    batch = np.asarray(batch)
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3:
      raise ValueError(
        f'{name} gave {batch.dtype} {batch.shape}; expected are uint8 '
        '[N, H, W, 3]. Use pixels.to_uint8 first.'
      )
    yield from batch


def _same_shapes(group, first):
  """-> the shapes all pairs must have, those of the first one."""
  shapes = {name: image.shape for name, image in group.items()}
  if shapes['samples'] != shapes['references']:
    raise ValueError(
      f'A sample has {image_set.size_of(group["samples"])} pixels but its '
      'reference '
      f'{image_set.size_of(group["references"])}; evaluate pictures of one '
      'size.'
    )
  if first is not None and shapes != first:
    raise ValueError(_unlike(first, shapes))
  return shapes


def _unlike(first, shapes):
  return (
    f'Pictures of {first} are followed by some of {shapes}; evaluate '
    'pictures of one size.'
  )


def score(sample, reference, lowres, downsample, perceptual, metrics=None):
  """Scores one picture against its original.

  Args:
    sample, reference: uint8 [H, W, 3].
    lowres: uint8 [h, w, 3], what the sample was made from, or None.
    downsample, perceptual: as `evaluate_pairs`.
    metrics: names; all that can be taken by default.

  Returns:
    {metric: float}; None where the picture is smaller than a window.
  """
  side = min(sample.shape[:2])
  fits = side >= distortion.WINDOWS['gaussian11'][1]
  measures = {
    'psnr': lambda: distortion.psnr(sample, reference),
    'psnr_y': lambda: distortion.psnr(
      distortion.luma(sample), distortion.luma(reference)
    ),
    'ssim': lambda: distortion.ssim(sample, reference),
    'ssim_gaussian': lambda: (
      distortion.ssim(sample, reference, window='gaussian11') if fits else None
    ),
    'ms_ssim': lambda: (
      distortion.ms_ssim(sample, reference)
      if side >= distortion.MS_SIDE
      else None
    ),
  }
  if perceptual is not None:
    measures['lpips'] = lambda: perceptual(sample, reference)
  if lowres is not None:
    measures['consistency'] = lambda: consistency.consistency(
      sample[None], lowres[None], method=downsample
    )[0]
  wanted = measures if metrics is None else metrics
  scores = {name: measures[name]() for name in wanted}
  return {k: None if v is None else float(v) for k, v in scores.items()}


def _intervals(scores):
  """[{metric: value}] -> {metric: [low, high]}, 95%, where images are few."""
  if not 2 <= len(scores) <= MOST_FOR_INTERVALS:
    return {}
  found = {}
  for name in scores[0]:
    values = [row[name] for row in scores]
    if None not in values and np.all(np.isfinite(values)):
      found[name] = list(bootstrap.interval(values))
  return found


def _means(scores):
  """[{metric: value}] -> {metric: mean}, in numbers that JSON knows."""
  means = {}
  for name in scores[0]:
    values = [row[name] for row in scores]
    means[name] = None
    if None not in values and np.all(np.isfinite(values)):
      means[name] = float(np.mean(values))
  means['identical_pairs'] = sum(bool(np.isinf(r['psnr'])) for r in scores)
  if 'consistency' in means:
    means['consistency_1e-5'] = means['consistency'] * 1e5
  return means
