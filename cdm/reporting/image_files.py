"""Picture files: written whole or not at all, read back exactly."""

import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

from cdm.reporting import atomic_files


def write_png(path, image):
  """Writes uint8 [H, W, 3] as PNG; the file appears only when complete."""
  # A PNG is one of thousands: waiting for the disk each time would be felt.
  with atomic_files.write_atomically(path, durable=False) as partial:
    Image.fromarray(np.asarray(image)).save(partial, format='PNG')


def read_png(path):
  """-> uint8 [H, W, 3]."""
  with Image.open(path) as image:
    return np.asarray(image.convert('RGB'))


def png_bytes(image):
  """-> the PNG file of uint8 [H, W, 3], as bytes."""
  buffer = io.BytesIO()
  Image.fromarray(np.asarray(image)).save(buffer, format='PNG')
  return buffer.getvalue()


def write_npz(path, images, *, shape, labels=None):
  """Writes `arr_0` (and `arr_1`) one image at a time, as the ADM evaluator
  reads it; memory stays that of one image.

  Args:
    path: of the .npz file; it appears only when complete.
    images: iterable of uint8 [H, W, 3], as many as shape[0].
    shape: (N, H, W, 3) of `arr_0`.
    labels: int [N] for `arr_1`, or None to leave it out.

  Raises:
    ValueError: the images are not as many, or not as large, as `shape` says.
  """
  name = pathlib.Path(path).name
  header = {
    'descr': np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
    'fortran_order': False,
    'shape': tuple(shape),
  }
  with (
    atomic_files.write_atomically(path) as partial,
    zipfile.ZipFile(partial, 'w', zipfile.ZIP_STORED) as archive,
  ):
    with archive.open('arr_0.npy', 'w', force_zip64=True) as file:
      np.lib.format.write_array_header_1_0(file, header)
      count = 0
      for image in images:
        if image.shape != tuple(shape[1:]) or image.dtype != np.uint8:
          raise ValueError(
            f'Image {count} is {image.dtype} {image.shape}; all images of '
            f'{name} must be uint8 {tuple(shape[1:])}.'
          )
        file.write(np.ascontiguousarray(image).tobytes())
        count += 1
    if count != shape[0]:
      raise ValueError(
        f'{count} images were given for {name}, {shape[0]} expected.'
      )
    if labels is not None:
      with archive.open('arr_1.npy', 'w', force_zip64=True) as file:
        np.lib.format.write_array(file, np.asarray(labels, np.int64))
