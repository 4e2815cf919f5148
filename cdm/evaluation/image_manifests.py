"""Makes the manifests of images that are read, not drawn.

They say which images of which data set are read, and how they were cropped and
resized.
"""

import os
import pathlib

from cdm.config import datasets, loader
from cdm.data import data_origin, picture_order, record_format, transforms
from cdm.data.source import Source
from cdm.evaluation.row_types import ImageManifest


def of_config(
  loaded: loader.ConfigDict, source: Source, count: int
) -> ImageManifest:
  """Returns the manifest of the evaluation data of a config.

  Args:
    loaded: the config.
    source: its evaluation data.
    count: number of images that are taken.
  """
  pipeline = datasets.pipeline_options(loaded)
  # Of shards, what they were prepared from.
  manifest = getattr(source, 'index', {}).get('recipe', {})
  origin = manifest.get('source', source.fingerprint)
  return {
    'data': loader.plain(loaded.eval_data),
    **data_origin.of_fingerprint(origin),
    **data_origin.of_section(loaded.eval_data),
    'origin': origin,
    'count': count,
    **_choice(count, len(source), getattr(source, 'order', '')),
    'image_size': [pipeline.image_size] * 2,
    'crop': pipeline.crop,
    'filter': transforms.filter_name(pipeline.filter),
    'min_side': pipeline.least_side,
  }


def of_files(
  what: str | os.PathLike, count: int, available: int
) -> ImageManifest:
  """Returns what is known of the images of a path without reading one.

  Args:
    what: path of a folder, an archive or a file.
    count: number of images that are taken.
    available: number of images that the path has.
  """
  found: ImageManifest = {
    'data': str(pathlib.Path(what).resolve()),
    'count': count,
    **_choice(count, available),
  }
  path = pathlib.Path(what)
  folder = record_format.find_folder(path) if path.is_dir() else None
  index = None if folder is None else record_format.read_index(folder)
  if index is None or 'command' in index['recipe']:  # drawn by `cdm sample`
    return found
  manifest = index['recipe']
  found = {
    **found,
    **data_origin.of_fingerprint(manifest['source']),
    'origin': manifest['source'],
  }
  if not manifest['size'] or manifest['crop'] == 'none':  # as in the source
    return found
  return {
    **found,
    'crop': manifest['crop'],
    'filter': manifest['filter'],
    'min_side': 0,  # Smaller images are prepared too.
  }


def _choice(count: int, available: int, order: str = '') -> ImageManifest:
  """Returns which images are taken.

  Args:
    count: number of images that are taken.
    available: number of images that there are.
    order: that of a folder, see `picture_order`; '' for data of one order.
  """
  if count == available:
    order = 'all, in the order of the data'
  else:
    how = f' ({picture_order.describe(order)})' if order else ''
    order = f'spread evenly over the data, in its order{how}'
  return {'available': available, 'order': order}
