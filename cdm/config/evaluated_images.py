"""Chooses the held-out images of a stage, on which it is judged.

All are spread evenly over its evaluation data. They differ in what happens to
an image that cannot be used: another one replaces it, or it does not count.
"""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from cdm.config import built_stage, datasets
from cdm.data import record_stream, subset, transforms
from cdm.data.files import damaged_file
from cdm.data.source import Source

_READ_THREADS = 16  # As many reads wait for storage at once as in training.


class HeldOut(NamedTuple):
  """The chosen evaluation images of a stage, spread evenly over the data.

  Attributes:
    source: the whole evaluation data, see `cdm.data.source`.
    records: indices of the chosen images in `source`.
    read: `(indices in source, rows=None) -> (uint8 [N, H, W, 3], int32 [N])`,
      images and labels; with `rows`, of these positions among the indices
      alone.
  """

  source: Source
  records: list[int]
  read: Callable[..., tuple[np.ndarray, np.ndarray]]


def open_held_out(saved: ConfigDict, count: int) -> HeldOut:
  """Chooses `count` evaluation images of a stage.

  Args:
    saved: config of the stage.
    count: number of images.

  Returns:
    HeldOut.

  Raises:
    ValueError: the data is missing or has fewer than `count` images.
  """
  options = datasets.pipeline_options(saved)
  source = datasets.open_source(saved.eval_data, 'eval_data')
  datasets.check_images(source, options, 'eval_data')

  def read(indices, rows=None):
    return subset.read_images(
      source,
      list(indices),
      rows,
      image_size=options.image_size,
      crop=options.crop,
      filter=options.filter,
      min_side=options.min_side,
      allow_enlarging=options.allow_enlarging,
      max_skip_fraction=options.max_skip_fraction,
      channels=options.channels,
    )

  return HeldOut(source, subset.spread_indices(source, count), read)


def read_held_out(
  saved: ConfigDict, count: int
) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
  """Chooses `count` evaluation images and returns a function that reads them.

  Args:
    saved: config of the stage.
    count: number of images.

  Returns:
    `read(numbers, rows=None) -> (uint8 [N, H, W, 3], int32 [N])`, images and
    labels. A number in [0, count) means the image `HeldOut.records[number]`;
    `rows` is that of `HeldOut.read`.

  Raises:
    ValueError: the data is missing or has fewer than `count` images.
  """
  held_out = open_held_out(saved, count)
  return lambda numbers, rows=None: held_out.read(
    [held_out.records[n] for n in numbers], rows
  )


def open_evaluated(
  saved: ConfigDict, count: int
) -> tuple[Callable[[int], tuple[np.ndarray, int] | None], str]:
  """Chooses `count` images to be evaluated, spread evenly over the data.

  In contrast to `read_held_out`, no other image replaces one that is too small,
  so that no image is evaluated twice.

  Args:
    saved: config of the stage.
    count: number of images to choose, before small ones are left out.

  Returns:
    (read, fingerprint): `read(number)`, with number in [0, count), returns
    (uint8 [H, W, 3], label), or None if that image is smaller than the section
    `pipeline` takes. The fingerprint changes whenever the data changes.

  Raises:
    ValueError: the data is missing or has fewer than `count` images.
  """
  options = datasets.pipeline_options(saved)
  built_stage.refuse_others(saved, 'evaluated image by image')
  transforms.check_fit(
    size=options.image_size, crop=options.crop, filter=options.filter
  )
  source = datasets.open_source(saved.eval_data, 'eval_data')
  datasets.check_images(source, options, 'eval_data')
  indices = subset.spread_indices(source, count)

  def read(number):
    return _read_image(options, source, indices[number])

  return read, source.fingerprint


class Evaluated(NamedTuple):
  """The chosen evaluation images of a stage, each of which counts once.

  Attributes:
    count: number of images that were chosen.
    read: `(numbers) -> (uint8 [N, H, W, 3], int32 [N], bool [N])`: images,
      labels, and whether the image counts. A number in [0, count) is that of a
      chosen image; images of other numbers, and images that are unreadable or
      smaller than the pipeline takes, are black and do not count.
  """

  count: int
  read: Callable[
    [Sequence[int] | np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]
  ]


def open_up_to(saved: ConfigDict, count: int) -> Evaluated:
  """Chooses `count` images to be evaluated in training, or all if fewer.

  In contrast to `open_evaluated`, images may be unreadable, as in training.

  Args:
    saved: config of the stage.
    count: number of images to choose, spread evenly over the data.

  Returns:
    Evaluated. `read` raises ValueError if more of the images than the share
    pipeline.max_skip_fraction are unreadable.

  Raises:
    ValueError: the data is missing or empty.
  """
  options = datasets.pipeline_options(saved)
  transforms.check_fit(
    size=options.image_size, crop=options.crop, filter=options.filter
  )
  source = datasets.open_source(
    saved.eval_data, 'eval_data', remedy=datasets.EVALUATE_NOTHING
  )
  datasets.check_images(source, options, 'eval_data')
  count = min(count, len(source))
  indices = subset.spread_indices(source, count)

  def read_one(number):
    if number >= count:
      return None
    try:
      return _read_image(options, source, indices[number])
    except transforms.BadImage as error:
      return error

  def read(numbers):
    side = options.image_size
    shape = len(numbers), side, side, options.channels
    images = np.zeros(shape, record_stream.image_dtype(source))
    labels = np.zeros(len(numbers), np.int32)
    there = np.zeros(len(numbers), bool)
    bad = []
    with concurrent.futures.ThreadPoolExecutor(_READ_THREADS) as threads:
      found = threads.map(read_one, map(int, numbers))
      for i, element in enumerate(found):
        if isinstance(element, transforms.BadImage):
          bad.append(element)
        elif element is not None:
          (images[i], labels[i]), there[i] = element, True
    if len(bad) > options.max_skip_fraction * len(numbers):
      raise damaged_file.reworded(
        bad[0],
        f'config.eval_data: {len(bad)} of {len(numbers)} images cannot be '
        f'read, more than pipeline.max_skip_fraction = '
        f'{options.max_skip_fraction} allows. The first: {bad[0]}',
      ) from bad[0]
    return images, labels, there

  return Evaluated(count, read)


def open_inputs(
  saved: ConfigDict, count: int
) -> Callable[[Sequence[int] | np.ndarray], dict[str, np.ndarray]]:
  """Returns a function that reads what the images of `open_up_to` come with.

  Args:
    saved: config of the stage.
    count: number of images to choose, as given to `open_up_to`.

  Returns:
    `read(numbers) -> {name: [N, ...]}`, see `datasets.input_shapes`; of images
    that do not count it holds zeros. {} if images come with nothing.
  """
  size = datasets.pipeline_options(saved).image_size
  shapes = datasets.input_shapes(saved.eval_data, size)
  if not shapes:
    return lambda numbers: {}
  source = datasets.open_source(
    saved.eval_data, 'eval_data', remedy=datasets.EVALUATE_NOTHING
  )
  indices = subset.spread_indices(source, min(count, len(source)))

  def read(numbers):
    arrays = {
      name: np.zeros((len(numbers), *shape), dtype)
      for name, (shape, dtype) in shapes.items()
    }
    for i, number in enumerate(numbers):
      if number < len(indices):
        found = source[indices[number]].get('inputs', {})
        for name, value in found.items():
          arrays[name][i] = value
    return arrays

  return read


def _read_image(options, source, index):
  """Reads an image as `PipelineOptions` say; see `subset.read_image`."""
  return subset.read_image(
    source,
    index,
    image_size=options.image_size,
    crop=options.crop,
    filter=options.filter,
    min_side=options.least_side,
    channels=options.channels,
  )
