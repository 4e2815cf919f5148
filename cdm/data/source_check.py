"""Checks that the images of a source suit what a pipeline makes of them.

What is refused here would change every pixel without a word: images that are
all smaller than they are to become, and a prepared data set that was cropped
or resized in another way.
"""

from typing import Any

from absl import logging

from cdm.data import source as source_contract
from cdm.data import subset, transforms
from cdm.data.printable_name import printable
from cdm.data.source import Source

_LOOKED_AT = 8  # images, if all are smaller


def check(
  source: Source,
  *,
  size: int,
  crop: str,
  filter: str,
  allow_enlarging: bool,
  name: str,
  permit: str = 'set allow_enlarging=True',
) -> None:
  """Refuses a source whose images would be enlarged, or were made otherwise.

  Single images that are smaller are no matter of this check: the pipeline
  leaves them out, see `pipeline.PipelineOptions.min_side`.

  Args:
    source: the images, see `cdm.data.source`.
    size: S, pixels.
    crop, filter: see `transforms.fit`. With the crop 'none' nothing is checked,
      because no image is changed then.
    allow_enlarging: whether all images may be smaller.
    name: names the source in messages, e.g. 'config.train_data'.
    permit: what permits enlarging, for messages.

  Raises:
    ValueError: the source does not suit; the message begins with the option
      that does not agree.
  """
  if crop == 'none':
    return
  made_by = getattr(source, 'made_by', None)
  if made_by not in (None, (crop, transforms.filter_name(filter))):
    logging.warning(
      'The images of %s were made with the crop %r and the filter %r, before '
      'they were distributed; the crop is %r and the filter %r. Set both to '
      'those of the data, so that results say what was compared.',
      *(name, *made_by, crop, filter),
    )
  manifest = getattr(source, 'index', {}).get('recipe')
  if manifest is not None and manifest['size']:
    path = f'{printable(getattr(source, "path", ""))} ({name})'
    stored = manifest['size']
    if stored < size and not allow_enlarging:
      raise ValueError(
        f'allow_enlarging is False, but {path} was prepared at {stored} '
        f'pixels, and {size} are needed. Prepare it with --size={size}, or '
        f'{permit} to enlarge it.'
      )
    _check_preparation(manifest, path, size, crop, filter)
  if not allow_enlarging:
    _check_sides(source, size, name, permit)


def _check_preparation(
  manifest: dict[str, Any], path: str, size: int, crop: str, filter: str
) -> None:
  """Compares the crop and filter of a prepared data set with those asked for.

  Images that were square from the start (crop 'none') were not cropped.
  """
  stored, made_by = manifest['size'], manifest['filter']
  if manifest['crop'] == 'none':
    return
  if crop != manifest['crop']:
    raise ValueError(
      f'crop is {crop!r}, but {path} was prepared with the crop '
      f'{manifest["crop"]!r}, which cannot be undone. Use that crop, or '
      f'prepare it again with --crop={crop}.'
    )
  wanted = transforms.filter_name(filter)
  if stored == size and wanted != transforms.filter_name(made_by):
    raise ValueError(
      f'filter is {filter!r}, but {path} was prepared at these {size} pixels '
      f'with the filter {made_by!r}. Use that filter, or prepare it again '
      f'with --filter={filter}.'
    )
  if stored != size:
    logging.warning(
      '%s was prepared at %d pixels with the filter %r, and is resized a '
      'second time, to %d with %r: its pixels are not those that the original '
      'images give. Prepare it with --size=%d for them.',
      *(path, stored, made_by, size, filter, size),
    )


def _check_sides(source: Source, size: int, name: str, permit: str) -> None:
  """Refuses a source if every image that is looked at is smaller."""
  first = ''
  count = min(_LOOKED_AT, len(source))
  looked = 0
  for index in subset.spread_indices(source, count):
    try:
      element = source_contract.read(source, index)
    except transforms.BadImage:
      continue
    side = transforms.least_side(element['image'], element['short_side'])
    if side >= size:
      return
    looked += 1
    first = first or f'record {index}: {side} pixels'
  if looked:
    raise ValueError(
      f'allow_enlarging is False, but the images of {name} are smaller than '
      f'the {size} pixels that are needed: so are all {looked} that were '
      f'looked at, by their shorter sides ({first}). Give larger images or a '
      f'smaller size, or {permit} to enlarge them.'
    )
