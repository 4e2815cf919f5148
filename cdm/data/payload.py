"""Packs an image into a record of a prepared data set: pixels or a file.

The payload 'raw' is pixels, 'png' is a PNG file of the same pixels, and 'jpeg'
is a JPEG file, which is smaller and does not keep every pixel. An image that is
not cropped or resized keeps the JPEG or PNG file that its source holds, byte
for byte, in both kinds of files.
"""

import contextlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from cdm.data import image_decoder, record_format, transforms
from cdm.data import source as source_contract
from cdm.data.files import storage_retry
from cdm.data.source import Element, Source

PAYLOADS = ('raw', 'png', 'jpeg')
_KEPT = (b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff')


class Payload(NamedTuple):
  """What a record holds of an image.

  Attributes:
    kind: one of `PAYLOADS`.
    quality: of JPEG files that are written, 1 to 100. Their colours have the
      full resolution (4:4:4).
  """

  kind: str = 'raw'
  quality: int = 95

  def check(self, size: int | None) -> None:
    """Checks the payload against the size of the images.

    Raises:
      ValueError: one of them is not known, or they do not fit.
    """
    if self.kind not in PAYLOADS:
      raise ValueError(
        f'payload is {self.kind!r}; known payloads are {PAYLOADS}.'
      )
    if not 1 <= self.quality <= 100:
      raise ValueError(f'quality is {self.quality}; it must be 1 to 100.')
    if size is None and self.kind == 'raw':
      raise ValueError(
        'Images of their original sizes are kept as files. Use the payload '
        "'png' or 'jpeg'."
      )

  def manifest(self) -> dict[str, str | int]:
    """Returns the entries of `record_format.Manifest` that it adds."""
    if self.kind == 'raw':
      return {}  # as in data sets of earlier versions
    added: dict[str, str | int] = {'payload': self.kind}
    if self.kind == 'jpeg':
      added['quality'] = self.quality
    return added


def read(
  source: Source, index: int, payload: Payload
) -> tuple[Element, bytes | None]:
  """Returns source[index], and the bytes of its file if they may be kept.

  Raises:
    transforms.BadImage: the image is unusable.
    transient_errors.NotAnswering: it could not be read in time.
  """
  encoded = getattr(source, 'encoded', None)
  decode = getattr(source, 'decode', None)
  if payload.kind == 'raw' or encoded is None or decode is None:
    return source_contract.read(source, index), None
  stored = storage_retry.retried(
    lambda: encoded(index), f'Reading record {index}'
  )
  return decode(stored), stored.data


def pack(
  element: Element, image: np.ndarray, file: bytes | None, payload: Payload
) -> bytes:
  """Returns the record of an image.

  Args:
    element: what the source holds.
    image: [H, W, 3] uint8, its image as it is to be stored.
    file: the bytes of its file in the source; None if there are none.
    payload: what the record holds.
  """
  if payload.kind == 'raw':
    return record_format.pack({**element, 'image': image})
  turned = None
  if file is not None and image.shape == element['image'].shape:
    turned = _turned(file, image)
  if file is None or turned is None:
    file = _encode(image, payload)
  return record_format.pack_file(
    file,
    label=int(element['label']),
    short_side=int(element['short_side']),
    exif_rotation=turned or False,
  )


def _turned(file: bytes, image: np.ndarray) -> bool | None:
  """Returns with which EXIF rotation a file is read as these very pixels.

  Returns:
    None for other files than JPEG and PNG, and for one that the source decodes
    in a way of its own.
  """
  if not file.startswith(_KEPT):
    return None
  for turned in (False, True):
    with contextlib.suppress(transforms.BadImage):
      found = image_decoder.decode(file, name='', exif_rotation=turned)
      if np.array_equal(found.pixels, image):
        return turned
  return None


def _encode(image: np.ndarray, payload: Payload) -> bytes:
  file = io.BytesIO()
  if payload.kind == 'png':
    Image.fromarray(image).save(file, 'PNG')
  else:
    Image.fromarray(image).save(
      file, 'JPEG', quality=payload.quality, subsampling=0
    )
  return file.getvalue()
