"""Adds maps of the landmarks and parts of faces to the pictures of a source.

A network learns to estimate them beside the picture, [FSRNet]. They lie in the
pixels of the stored picture, and follow it where the pipeline crops, resizes
and mirrors it.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from cdm.data import mirrored_names, rendered_maps, subset
from cdm.data import source as source_contract
from cdm.data.parsing_folder import ParsingFolder
from cdm.data.printable_name import printable
from cdm.data.source import Element, Source
from cdm.data.transforms import BadImage, Region, UnusableImage

_LOOKED_AT = 8  # pictures, at the start


class Landmarks(Protocol):
  """The points of the pictures of a source."""

  @property
  def names(self) -> tuple[str, ...]:
    """K names of points."""
    ...

  @property
  def size(self) -> tuple[int, int] | None:
    """(width, height) of the pictures of the points; None: as stored."""
    ...

  def of(self, i: int) -> np.ndarray:
    """Returns those of picture i, float32 [K, 2] (x, y), in its pixels."""
    ...

  def outermost(self) -> Sequence[int]:
    """Returns the pictures most likely to have a point outside; may be ()."""
    ...


class Face(NamedTuple):
  """What is known of the face in a stored picture.

  Attributes:
    points: [K, 2] (x, y), in pixels of the picture; None without landmarks.
    parts: uint8 [h, w], the part that each pixel shows, of a whole picture that
      may have another size; None without them.
  """

  points: np.ndarray | None
  parts: np.ndarray | None


class FacialMaps:
  """A source whose elements have a `Face`, of which it renders maps.

  Attributes:
    num_maps: K + P, the maps of K landmarks and then P parts.
    mirrored: the index of the map whose place each of them takes in a mirrored
      picture.
  """

  def __init__(
    self,
    source: Source,
    landmarks: Landmarks | None,
    parsing: ParsingFolder | None,
  ):
    """Binds what belongs together.

    Args:
      source: the pictures.
      landmarks: the points of its pictures; None for none.
      parsing: the parts of its pictures; None for none.
    """
    self._source, self._landmarks, self._parsing = source, landmarks, parsing
    self.num_classes = source.num_classes
    self.class_names = source.class_names
    points = landmarks.names if landmarks is not None else ()
    parts = parsing.names if parsing is not None else ()
    self._num_parts = len(parts)
    self.num_maps = len(points) + len(parts)
    self.mirrored = (
      *mirrored_names.order(points),
      *(len(points) + n for n in mirrored_names.order(parts)),
    )

  def __len__(self) -> int:
    return len(self._source)

  @property
  def fingerprint(self) -> str:
    """That of the pictures."""
    return self._source.fingerprint

  def __getitem__(self, i: int) -> Element:
    element = self._source[i]
    return {**element, 'face': self._face(i, element['image'].shape)}

  def maps(self, element: Element, region: Region, *, side: int) -> np.ndarray:
    """Renders the maps of a square of a picture.

    Args:
      element: the stored picture, as this source returns it.
      region: the part of it that became the square.
      side: H = W of the maps.

    Returns:
      uint8 [side, side, num_maps], where 255 stands for 1.
    """
    points, parts = element['face']
    found = []
    if points is not None:
      found.append(rendered_maps.heat_maps(points, region, side=side))
    if parts is not None:
      y, x = np.divide(parts.shape, element['image'].shape[:2])
      region = Region(
        y * region.top, x * region.left, y * region.height, x * region.width
      )
      found.append(
        rendered_maps.shares(parts, self._num_parts, region, side=side)
      )
    return np.concatenate(found, axis=2)

  def check(self, *, flip: bool) -> None:
    """Reads the faces of a few pictures, so that bad ones end a run at once.

    They are spread over the source, and those with the outermost points are
    among them. In training, a picture whose face cannot be used is left out and
    counted, as one that cannot be read.

    Args:
      flip: whether pictures are mirrored.

    Raises:
      ValueError: one of the faces cannot be used; or pictures are mirrored, and
        the names of the points do not tell which ones change places.
    """
    names = self._landmarks.names if self._landmarks is not None else ()
    if flip and len(names) > 1 and mirrored_names.is_same(names):
      raise ValueError(
        f'landmarks has the points {source_contract.first_names(names)}, whose '
        'names do not tell left from right, and pipeline.flip mirrors half of '
        'the pictures. Name them lefteye_x, righteye_x, ... in the header, or '
        'set --config.pipeline.flip=False.'
      )
    chosen = subset.spread_indices(self, min(_LOOKED_AT, len(self)))
    if self._landmarks is not None:
      chosen += self._landmarks.outermost()
    errors = []
    for i in chosen:
      try:
        shape = source_contract.read(self._source, i)['image'].shape
      except BadImage:
        continue
      try:
        self._face(i, shape)
      except BadImage as error:
        errors.append(error)
    # A program finds points outside of some pictures, but not of all.
    found_by_program = self._landmarks is not None and self._landmarks.size
    if errors and not (found_by_program and len(errors) < len(chosen)):
      raise ValueError(f'{errors[0]}.') from errors[0]

  def _face(self, i, shape):
    """Returns the Face of picture i, [H, W, 3]; raises BadImage."""
    points = None
    if self._landmarks is not None:
      points = self._landmarks.of(i)
      if self._landmarks.size is not None:
        # (0, 0) is the centre of the first pixel of every copy.
        width, height = self._landmarks.size
        scale = np.array([shape[1] / width, shape[0] / height])
        points = ((points + 0.5) * scale - 0.5).astype(np.float32)
      far = points.max(axis=0)
      # The first pixel begins at -0.5, and a file that counts pixels from 1 has
      # the last one at W.
      if points.min() < -0.5 or far[0] > shape[1] or far[1] > shape[0]:
        raise UnusableImage(
          self._name(i),
          f'its landmarks reach ({far[0]:g}, {far[1]:g}), and it has '
          f'{shape[1]}x{shape[0]} pixels; give the landmarks of the pictures '
          'as they are stored',
        )
    parts = self._parsing.read(i) if self._parsing is not None else None
    if parts is not None:
      height, width = parts.shape
      if abs(height - shape[0] * width / shape[1]) > 1:
        raise UnusableImage(
          self._name(i),
          f'its map of parts has {width}x{height} pixels, of another shape '
          f'than its {shape[1]}x{shape[0]}; give the maps of whole pictures',
        )
    return Face(points, parts)

  def _name(self, i):
    names = getattr(self._source, 'file_names', lambda: None)()
    return f'record {i}' if names is None else printable(names[i])
