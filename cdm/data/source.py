"""Defines a source, the random-access set of labelled images that cdm reads.

A source has a length, and source[i] is

  {'image': uint8 [H, W, 3], 'label': int32, 'short_side': int32}

The sources are in `folder`, `tfds`, `array_record`, `npz_dataset`,
`sample_photos`, `photo_crops` and `synthetic`.
"""

from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np

from cdm.data.files import storage_retry
from cdm.data.image_notes import Note


class Element(TypedDict):
  """One labelled image of a source.

  Attributes:
    image: uint8 [H, W, 3].
    label: int32 from 0 on; 0 if the source has no labels, -1 in a split of
      tensorflow-datasets that withholds them.
    short_side: the shorter of the image's two sides as it was first stored,
      before any preparation; pixels.
    notes: what the pixels do not show of the image file, if anything.
    face: a `facial_maps.Face`, in the elements of that source.
    inputs: further arrays of a source that has `input_shapes`, which say what
      they are; see `photo_crops`.
  """

  image: np.ndarray
  label: np.int32
  short_side: np.int32
  notes: NotRequired[tuple[Note, ...]]
  face: NotRequired[Any]
  inputs: NotRequired[dict[str, Any]]


class Source(Protocol):
  """Random access to labelled images.

  A source can be pickled, and several threads may read it at once.

  Attributes:
    num_classes: number of labels; 0 if there are none.
    class_names: the name of each label; () if there are none.
  """

  num_classes: int
  class_names: tuple[str, ...]

  @property
  def fingerprint(self) -> str:
    """Text that changes when the images do."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> Element:
    """Returns image i.

    Raises:
      transforms.BadImage: the image is unusable; the pipeline then counts it
        and reads another.
    """
    ...


def read(
  source: Source, index: int, *, seconds: float | None = None
) -> Element:
  """Returns source[index]; tries again while the error may pass.

  Args:
    source: the images.
    index: index of one.
    seconds: for how long, see `storage_retry.retried`.

  Raises:
    transforms.BadImage: the image is unusable.
    transient_errors.NotAnswering: it could not be read in that time.
  """
  return storage_retry.retried(
    lambda: source[index], f'Reading record {index}', seconds=seconds
  )


def element(
  image: np.ndarray, label: int | np.integer, notes: tuple[Note, ...] = ()
) -> Element:
  """Returns source[i] of an image, uint8 [H, W, 3], in its stored size."""
  whole: Element = {
    'image': image,
    'label': np.int32(label),
    'short_side': np.int32(min(image.shape[:2])),
  }
  if notes:
    whole['notes'] = notes
  return whole


def first_names(names: tuple[str, ...]) -> str:
  """Returns '(a, b, ...)' of at most five names, for an error message."""
  shown = ', '.join(map(repr, names[:5]))
  return f'({shown}{", ..." if len(names) > 5 else ""})'
