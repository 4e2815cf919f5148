"""Reads and writes the feature statistics of a reference set, for FID and sFID.

The file is an .npz of `mu`, `sigma`, `mu_s` and `sigma_s`, as [ADM]'s evaluator
has them, and of `count` and `recipe`. The recipe is the manifest: JSON of
everything that the statistics depend on (data set, split, number and order of
the images, size, crop, filter, the network's checksum).
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.data import data_origin, npz_arrays
from cdm.data.files import json_file, storage_retry
from cdm.data.files.damaged_file import DamagedFile
from cdm.evaluation import metrics_table
from cdm.evaluation.feature_statistics import Gathered
from cdm.evaluation.metrics import fid
from cdm.evaluation.row_types import ImageManifest
from cdm.reporting import output_files

MOST_FEATURES = 1 << 12  # twice as many as FID's network has
# Keys that must agree in the manifests of two sets for a fair comparison; the
# other keys only describe the sets.
MUST_AGREE = ('image_size', 'resize_to_network', 'network', 'weights_sha256')
# The same for the images behind the samples and those of the reference:
# {key: title}.
PREPARATION = {
  'crop': 'the crop',
  'filter': 'the resize filter',
  'min_side': 'the least side of an image',
}
# What a result states of both sets, known or not.
FIELDS = ('source', 'split', 'count', 'available', 'order', 'image_size')
UNKNOWN = 'unknown'
LOSSY = {'.jpg', '.jpe', '.jpeg', '.jfif', '.webp', '.avif'}


class Statistics(NamedTuple):
  """Gaussians fitted to the features of a set, and the set's manifest.

  Attributes:
    mean: float64 [2048], of the pooled features.
    covariance: float64 [2048, 2048], of the pooled features.
    mean_spatial: float64 [2023], of the spatial features, or None.
    covariance_spatial: float64 [2023, 2023], of the spatial features, or None.
    count: number of images, or None if it is not known.
    recipe: manifest of the statistics; {} if the file has none.
  """

  mean: np.ndarray
  covariance: np.ndarray
  mean_spatial: np.ndarray | None
  covariance_spatial: np.ndarray | None
  count: int | None
  recipe: ImageManifest


def from_gathered(gathered: Gathered, recipe: ImageManifest) -> Statistics:
  """Returns the statistics of a set.

  Args:
    gathered: pooled moments, and spatial ones or None, of the whole set.
    recipe: manifest of the images and the network.
  """
  pool, spatial = gathered.pool, gathered.spatial
  assert pool is not None
  return Statistics(
    mean=pool.mean,
    covariance=pool.covariance,
    mean_spatial=None if spatial is None else spatial.mean,
    covariance_spatial=None if spatial is None else spatial.covariance,
    count=gathered.count,
    recipe=recipe,
  )


def write(path: str | os.PathLike, statistics: Statistics) -> None:
  """Writes the file atomically.

  Raises:
    OSError: the file cannot be written.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays: dict = {'mu': statistics.mean, 'sigma': statistics.covariance}
  if statistics.mean_spatial is not None:
    arrays['mu_s'] = statistics.mean_spatial
    arrays['sigma_s'] = statistics.covariance_spatial
  if statistics.count is not None:
    arrays['count'] = np.int64(statistics.count)
  arrays['recipe'] = np.array(json.dumps(statistics.recipe, sort_keys=True))

  def write() -> None:
    with (
      output_files.write_result(path) as partial,
      open(partial, 'wb') as file,
    ):
      np.savez(file, **arrays)

  storage_retry.retried(write, f'Writing {path}')


def holds(path: str | os.PathLike) -> bool:
  """Returns whether an .npz file has statistics in it."""
  try:
    return 'mu' in npz_arrays.array_names(path)
  except ValueError:
    return False


def read(path: str | os.PathLike) -> Statistics:
  """Reads a file that `write` or [ADM]'s evaluator made.

  Raises:
    DamagedFile: the file is damaged, or its arrays are not a mean and a
      covariance.
  """
  try:
    arrays = npz_arrays.read(path, leave_out=('arr_0',))
  except DamagedFile as error:
    raise DamagedFile(
      f'{path} cannot be read as statistics ({error}); it may be truncated, so '
      'make or fetch it again.'
    ) from error
  for mean, covariance in (('mu', 'sigma'), ('mu_s', 'sigma_s')):
    if mean in arrays or mean == 'mu':
      _check_gaussian(path, arrays, mean, covariance)
  return Statistics(
    mean=arrays['mu'].astype(np.float64),
    covariance=arrays['sigma'].astype(np.float64),
    mean_spatial=arrays.get('mu_s'),
    covariance_spatial=arrays.get('sigma_s'),
    count=_count(path, arrays['count']) if 'count' in arrays else None,
    recipe=_recipe(path, arrays['recipe']) if 'recipe' in arrays else {},
  )


def _check_gaussian(
  path: str | os.PathLike,
  arrays: Mapping[str, np.ndarray],
  mean: str,
  covariance: str,
) -> None:
  """Refuses arrays that are not a mean [D] and a covariance [D, D]."""
  shapes = [
    np.shape(arrays[name]) if name in arrays else ()
    for name in (mean, covariance)
  ]
  size = shapes[0][0] if len(shapes[0]) == 1 else None
  if shapes[1] != (size, size) or not size or size > MOST_FEATURES:
    raise DamagedFile(
      f'{path} has {mean} of shape {shapes[0]} and {covariance} of '
      f'{shapes[1]}; the expected shapes are [D] and [D, D], with D at most '
      f'{MOST_FEATURES:,}.'
    )
  for name in (mean, covariance):
    if arrays[name].dtype.kind not in 'fiu':
      raise DamagedFile(
        f'{path}: {name} is {arrays[name].dtype}, and real numbers are '
        'expected; make or fetch it again.'
      )
  try:
    if not np.isfinite(arrays[mean]).all():
      raise ValueError('Statistics are not finite; make them again.')
    fid.check_covariance(arrays[covariance])
    fid.check_eigenvalues(arrays[covariance])
  except (ValueError, TypeError) as error:
    raise DamagedFile(f'{path}: {covariance}: {error}') from None


def _count(path: str | os.PathLike, array: np.ndarray) -> int:
  if array.shape != () or array.dtype.kind not in 'iu' or array < 1:
    raise DamagedFile(
      f'{path}: count is {array.dtype} {array.shape}, and one number of images '
      'is expected; make or fetch it again.'
    )
  return int(array)


def _recipe(path: str | os.PathLike, array: np.ndarray) -> ImageManifest:
  remedy = 'Make or fetch it again.'
  return json_file.parse(
    str(array).encode('utf-8', 'replace'),
    dict[str, Any],
    name=f'recipe in {path}',
    remedy=remedy,
  )


def check_sizes(
  path: str | os.PathLike,
  found: Statistics,
  metrics: Sequence[str],
  sizes: Mapping[str, int],
) -> None:
  """Refuses statistics that do not fit the metrics, before any work is done.

  Args:
    path: path of the statistics, for the error message.
    found: the statistics.
    metrics: metrics of moments, from `metrics_table.SETS`.
    sizes: {metric: number of features that the network gives}; all metrics of
      the same features have the same number.

  Raises:
    ValueError: the statistics are those of another network or layer, or lack
      the spatial part.
  """
  means = {'pool': found.mean, 'spatial': found.mean_spatial}
  parts = {metrics_table.SETS[name].takes: n for name, n in sizes.items()}
  for metric in metrics:
    part = metrics_table.SETS[metric].takes
    mean, size = means[part], parts[part]
    if mean is None:
      raise ValueError(
        f'{path} holds no spatial statistics (mu_s, sigma_s), which {metric} '
        'needs; give its images, or make it again with --make_reference.'
      )
    if mean.size != size:
      raise ValueError(
        f'{path} has statistics of {mean.size} features, and {metric} needs '
        f'{size:,}: they were made by another network or layer. Make them '
        'again with --make_reference.'
      )


def differences(samples: ImageManifest, reference: ImageManifest) -> list[str]:
  """Returns warnings for all differences that make two sets incomparable.

  They are the `MUST_AGREE` keys, the `PREPARATION` of the images, their data
  set, a split that the config of the samples does not name, a reference of a
  part of its data, and files with traces of lossy compression in one set alone.
  What a manifest does not say is not compared.

  Args:
    samples: manifest of the samples.
    reference: manifest of the reference; {} if it is not known.

  Returns:
    Sentences without a full stop; [] if the sets are comparable. If the
    manifest of the reference is not known, one sentence that says so.
  """
  if not reference:
    return [
      'the reference does not say how it was made: its crop, resize and '
      'network may differ from those of the samples'
    ]
  found = [
    f'{name} is {samples.get(name)!r} for the samples and '
    f'{reference[name]!r} for the reference'
    for name in MUST_AGREE
    if name in reference and samples.get(name) != reference[name]
  ]
  ours, theirs = preparation(samples), preparation(reference)
  found += [
    f'{title} is {ours[name]!r} for the images behind the samples and '
    f'{theirs[name]!r} for those of the reference; make the reference from '
    'the config of the last stage'
    for name, title in PREPARATION.items()
    if name in ours and name in theirs and ours[name] != theirs[name]
  ]
  found += _other_data(samples, reference)
  lossy = is_lossy(samples), is_lossy(reference)
  if None not in lossy and lossy[0] != lossy[1]:
    which = ('samples', 'reference') if lossy[0] else ('reference', 'samples')
    found.append(
      f'the {which[0]} are files of lossy compression, such as JPEG, and the '
      f'{which[1]} are not: the traces of compression are measured too'
    )
  return found


def _other_data(samples: ImageManifest, reference: ImageManifest) -> list[str]:
  """Returns sentences about a reference of other images than are expected."""
  found = []
  source, split = (reference.get(key) for key in ('source', 'split'))
  known = origins(samples)
  names = {origin['source'] for origin in known if 'source' in origin}
  plain = data_origin.plain(source or '')
  if source and names and plain not in map(data_origin.plain, names):
    found.append(
      f'the source is {_one_of(names)} for the samples and {source!r} for the '
      'reference'
    )
  splits = {
    origin['split']
    for origin in known
    if data_origin.plain(origin.get('source', '')) == plain
    and origin.get('split')
  }
  # A set of real images may be compared with another split of its data.
  drawn = 'data_sets' in _last_stage(samples)
  if split and splits and drawn and split not in splits:
    found.append(
      f'the split is {_one_of(splits)} in the config of the samples and '
      f'{split!r} for the reference'
    )
  count, available = (reference.get(key) for key in ('count', 'available'))
  if count and available and count < available:
    found.append(
      f'the count is {count:,} for the reference, of {available:,} images that '
      'its data has; published numbers are of all'
    )
    same = all(
      samples.get(key) == reference.get(key)
      for key in ('source', 'split', 'count')
    )
    orders = samples.get('order'), reference.get('order')
    if source and same and None not in orders and orders[0] != orders[1]:
      found.append(
        f'the order is {orders[0]!r} for the samples and {orders[1]!r} for the '
        'reference, so they are other images of their data'
      )
  return found


def _one_of(values):
  return ' or '.join(map(repr, sorted(values)))


def origins(recipe: ImageManifest) -> list[data_origin.Origin]:
  """Returns the data sets that a set may be compared with, if it names them.

  Of sampled images, they are those of the config of the last stage.
  """
  stated = _last_stage(recipe).get('data_sets')
  if stated:
    return list(stated.values())
  if 'source' not in recipe:
    return []
  return [{'source': recipe['source'], 'split': recipe.get('split', '')}]


def comparison(
  samples: ImageManifest, reference: ImageManifest
) -> dict[str, dict[str, Any]]:
  """Returns what the manifests of two sets say of the images, side by side.

  Args:
    samples: manifest of the samples.
    reference: manifest of the reference; {} if it is not known.

  Returns:
    {key of `FIELDS` or `PREPARATION`: {'samples': value, 'reference': value}},
    with `UNKNOWN` for what a manifest does not say. The data set, the split and
    the preparation of sampled images are those of the images that the last
    stage was trained on.
  """
  known = []
  for recipe in (samples, reference):
    trained = (origins(recipe) or [{}])[0]
    known.append({**trained, **recipe, **preparation(recipe)})
  return {
    name: {
      'samples': known[0].get(name, UNKNOWN),
      'reference': known[1].get(name, UNKNOWN),
    }
    for name in (*FIELDS, *PREPARATION)
  }


def _last_stage(recipe: ImageManifest) -> Mapping[str, Any]:
  """Returns the entry of the stage that drew the images, or the manifest."""
  drawn = recipe.get('sampling', recipe)
  stages: Sequence = drawn.get('stages') or [drawn]
  return stages[-1]


def preparation(recipe: ImageManifest) -> dict[str, Any]:
  """Returns how the images of a set were prepared, as far as it is known.

  Of sampled images, it is how the images that the last stage was trained on
  were prepared.

  Args:
    recipe: manifest of the images.

  Returns:
    {key of `PREPARATION`: value}.
  """
  prepared = _last_stage(recipe).get('prepared') or {}
  known: Mapping[str, Any] = {**recipe, **prepared}
  found = {name: known[name] for name in PREPARATION if name in known}
  # None and 0 both take images of any size.
  return found | ({'min_side': found['min_side'] or 0} if found else {})


def is_lossy(recipe: ImageManifest) -> bool | None:
  """Returns whether files of the set are lossily compressed.

  None is returned for images that were resized after they were decoded, such as
  those of a config.
  """
  if 'suffixes' in recipe:
    return bool(LOSSY & {*recipe['suffixes']})
  return False if 'drawn' in recipe else None
