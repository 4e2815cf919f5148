"""Statistics of a reference set, with the recipe they were made by.

An .npz of `mu`, `sigma`, `mu_s` and `sigma_s`, as [ADM]'s evaluator has them,
and beside them `count` and `recipe`: JSON of everything on which the numbers
depend (data, split, crop, filter, size, count, the network's checksum).
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np

from cdm.data import npz_images
from cdm.evaluation.metrics import fid
from cdm.reporting import output_files

# What must agree for two sets to be compared; the rest describes them.
MUST_AGREE = ('image_size', 'resize_to_network', 'network', 'weights_sha256')


class Statistics(NamedTuple):
  """Gaussians fitted to features, and where they come from.

  Attributes:
    mean: float64 [2048].
    covariance: float64 [2048, 2048].
    mean_spatial: float64 [2023], or None.
    covariance_spatial: float64 [2023, 2023], or None.
    count: images, or None if it is not known.
    recipe: dict; {} of a file that has none.
  """

  mean: np.ndarray
  covariance: np.ndarray
  mean_spatial: np.ndarray | None
  covariance_spatial: np.ndarray | None
  count: int | None
  recipe: dict


def from_gathered(gathered, recipe):
  """`Gathered` of a whole set -> Statistics."""
  spatial = gathered.spatial
  return Statistics(
    mean=gathered.pool.mean,
    covariance=gathered.pool.covariance,
    mean_spatial=None if spatial is None else spatial.mean,
    covariance_spatial=None if spatial is None else spatial.covariance,
    count=gathered.count,
    recipe=recipe,
  )


def write(path, statistics):
  """Writes the file; it appears only when it is whole.

  Raises:
    OSError: it cannot be written.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {'mu': statistics.mean, 'sigma': statistics.covariance}
  if statistics.mean_spatial is not None:
    arrays['mu_s'] = statistics.mean_spatial
    arrays['sigma_s'] = statistics.covariance_spatial
  with output_files.whole(path) as partial, open(partial, 'wb') as file:
    np.savez(
      file,
      **arrays,
      count=np.int64(statistics.count),
      recipe=np.array(json.dumps(statistics.recipe, sort_keys=True)),
    )


def holds(path):
  """Whether an .npz has statistics in it."""
  try:
    return 'mu' in npz_images.array_names(path)
  except ValueError:
    return False


def read(path):
  """Reads the file, ours or [ADM]'s.

  Raises:
    ValueError: it is damaged, or its arrays are no mean and no covariance.
  """
  try:
    with np.load(path, allow_pickle=False) as archive:
      held = {name: archive[name] for name in archive.files if name != 'arr_0'}
      recipe = json.loads(str(held['recipe'])) if 'recipe' in held else {}
  except (*npz_images.DAMAGE, KeyError) as error:
    raise ValueError(
      f'{path} cannot be read as statistics ({error}); it may be truncated, so '
      'make or fetch it again.'
    ) from error
  for mean, covariance in (('mu', 'sigma'), ('mu_s', 'sigma_s')):
    if mean not in held and mean == 'mu_s':
      continue
    shapes = [np.shape(held.get(name)) for name in (mean, covariance)]
    size = shapes[0][0] if len(shapes[0]) == 1 else None
    if shapes[1] != (size, size):
      raise ValueError(
        f'{path} has {mean} of shape {shapes[0]} and {covariance} of '
        f'{shapes[1]}; expected are [D] and [D, D].'
      )
    try:
      if not np.isfinite(held[mean]).all():
        raise ValueError('Statistics are not finite; make them again.')
      fid.check_covariance(held[covariance])
      fid.check_eigenvalues(held[covariance])
    except (ValueError, TypeError) as error:
      raise ValueError(f'{path}: {covariance}: {error}') from None
  return Statistics(
    mean=held['mu'].astype(np.float64),
    covariance=held['sigma'].astype(np.float64),
    mean_spatial=held.get('mu_s'),
    covariance_spatial=held.get('sigma_s'),
    count=int(held['count']) if 'count' in held else None,
    recipe=recipe,
  )


def check_sizes(path, found, metrics, sizes):
  """Refuses statistics that metrics cannot be taken with, before any work.

  Args:
    path: of them, for the complaint.
    found: Statistics.
    metrics: 'fid', 'sfid' or both.
    sizes: {'fid': features that the network gives, 'sfid': the same}.

  Raises:
    ValueError: they are of another network or layer, or lack a part.
  """
  means = {'fid': found.mean, 'sfid': found.mean_spatial}
  for metric in metrics:
    mean, size = means[metric], sizes[metric]
    if mean is None:
      raise ValueError(
        f'{path} holds no spatial statistics (mu_s, sigma_s), which {metric} '
        'needs; give its images, or make it again with --make_reference.'
      )
    if mean.size != size:
      raise ValueError(
        f'{path} has statistics of {mean.size} features, and {metric} is of '
        f'{size:,}: they were made by another network or layer. Make them '
        'again with --make_reference.'
      )


def differences(mine, reference):
  """-> sentences on how two recipes differ where they must agree.

  Args:
    mine: recipe of the samples.
    reference: recipe of the reference; {} if it is not known.
  """
  if not reference:
    return [
      'the reference does not say how it was made: its crop, resize and '
      'network may be others'
    ]
  return [
    f'{name} is {mine.get(name)!r} of the samples and {reference[name]!r} of '
    'the reference'
    for name in MUST_AGREE
    if name in reference and mine.get(name) != reference[name]
  ]
