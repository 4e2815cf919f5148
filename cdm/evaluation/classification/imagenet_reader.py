"""Reads labelled images for a classifier of ImageNet's classes.

The images go through torchvision's preset: the short side is resized to 256,
and the middle 224 pixels are cut out.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.data import source as source_contract
from cdm.data import subset, transforms
from cdm.distributed import collectives
from cdm.evaluation import image_source
from cdm.evaluation.classification import labelled_set
from cdm.models.pretrained import imagenet_classes

SIDE, SHORT_SIDE = 224, 256


class Reader(NamedTuple):
  """Reads the images of a labelled set through torchvision's preset.

  Attributes:
    count: number of images.
    read: `read(indices)` returns (uint8 [n, 224, 224, 3], int [n] labels of the
      source).
    classes: int [classes of the source], the class of ImageNet that each is.
    source: the data set, see `data.source`.
    which: how the images were chosen: 'all', 'first by file name' or 'spread
      over the set'.
  """

  count: int
  read: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]
  classes: np.ndarray
  source: Any
  which: str


def open_reader(
  what: str | os.PathLike, section: dict[str, Any], num: int | None
) -> Reader:
  """Opens a labelled set for ResNet-50.

  Args:
    what: WHAT, for error messages.
    section: the config section of the set, see `labelled_set.section`.
    num: number of images to take, None for all: the first by file name of
      ImageNet's validation set, or spread over any other set.

  Raises:
    ValueError: the set has fewer images than `num`, or classes that are not
      ImageNet's.
  """
  source, _ = labelled_set.open_set(what, section)
  if labelled_set.is_named(source):
    classes = imagenet_classes.labels_of(source.class_names)
  elif source.num_classes <= len(imagenet_classes.WORDNET_IDS):
    classes = np.arange(source.num_classes)
  else:
    raise ValueError(
      f'{what} has {source.num_classes} classes, but ImageNet has 1000.'
    )
  count = image_source.check_available(what, len(source), num)
  indices, which = range(count), 'all'
  if count < len(source):
    if collectives.is_first():
      print(
        f'reading the file names of {len(source):,} images ...',
        file=sys.stderr,
      )
    first = subset.first_validation(source, count)
    indices = subset.spread_indices(source, count) if first is None else first
    which = 'spread over the set' if first is None else 'first by file name'

  def read(wanted):
    elements = [source_contract.read(source, indices[n]) for n in wanted]
    x = [
      transforms.resize_crop(e['image'], short_side=SHORT_SIDE, size=SIDE)
      for e in elements
    ]
    return np.stack(x), np.array([e['label'] for e in elements], np.int64)

  return Reader(count, read, classes, source, which)
