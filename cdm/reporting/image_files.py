"""Writes images as PNG files or as one .npz file."""

import io
import os
import pathlib
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image, PngImagePlugin

from cdm.data.files import atomic_files, storage_retry

COMPARED = '_compare.png'  # how the names of `cdm upscale --compare` end


def write_png(
  path: str | os.PathLike,
  image: np.ndarray,
  *,
  text: Mapping[str, str] | None = None,
  icc: bytes | None = None,
) -> None:
  """Writes uint8 [H, W, 3] as PNG; the file appears only when complete.

  Args:
    path: path of the file.
    image: the image.
    text: {name: ASCII text} of text entries to write into the file, or None.
    icc: bytes of its colour profile; None for sRGB.
  """
  entries = PngImagePlugin.PngInfo()
  for name, value in (text or {}).items():
    entries.add_text(name, value)

  # The write is not durable, because a command writes thousands of images, and
  # waiting for the disk after each one would slow it down noticeably.
  # It is tried again while an error of writing may pass.
  def write() -> None:
    with atomic_files.write_atomically(path, durable=False) as partial:
      Image.fromarray(np.asarray(image)).save(
        partial, format='PNG', pnginfo=entries, icc_profile=icc
      )

  storage_retry.retried(write, f'Writing {path}')


def png_bytes(image: np.ndarray) -> bytes:
  """Returns uint8 [H, W, 3] encoded as PNG."""
  buffer = io.BytesIO()
  Image.fromarray(np.asarray(image)).save(buffer, format='PNG')
  return buffer.getvalue()


def write_npz(
  path: str | os.PathLike,
  images: Iterable[np.ndarray],
  *,
  shape: tuple[int, int, int, int],
  labels: np.ndarray | None = None,
) -> None:
  """Writes images to a .npz file in the format that ADM's evaluator reads.

  The images are written one at a time, so memory holds only one of them.

  Args:
    path: path of the .npz file, which appears only when complete.
    images: uint8 [H, W, 3] each, as many as shape[0].
    shape: (N, H, W, 3) of `arr_0`.
    labels: int [N] for `arr_1`, or None to leave it out.

  Raises:
    ValueError: if the number of images or the shape of one differs from
      `shape`.
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
        f'{count} images were given for {name}; {shape[0]} were expected.'
      )
    if labels is not None:
      with archive.open('arr_1.npy', 'w', force_zip64=True) as file:
        np.lib.format.write_array(file, np.asarray(labels, np.int64))
