"""Turns archives of pictures into .npz files that cdm trains on from memory.

The pictures of an archive lie in NAME/train/... and NAME/val/..., with a folder
per class or without. Decoding all of them once takes seconds; an epoch from the
.npz then decodes nothing.
"""

import concurrent.futures
import functools
import io
import os
import pathlib
import zipfile

import numpy as np
from PIL import Image

from cdm.data import class_names, transforms
from cdm.reporting import image_files


def unpack(archive, folder, *, half, size, most=0):
  """Writes the pictures of one half as FOLDER/images.npz, unless it is there.

  Args:
    archive: a zip of pictures.
    folder: where images.npz and, with classes, classes.json are written.
    half: 'train' or 'val'.
    size: H = W; pictures of another size are cropped and shrunk.
    most: take so many, spread over the half; 0 takes all.

  Returns:
    Path of images.npz.
  """
  path = pathlib.Path(folder) / 'images.npz'
  if path.exists():
    return path
  if not pathlib.Path(archive).is_file():
    raise SystemExit(
      f'{archive} is missing; prepare it for this job with '
      'benchmarks/gpu/prepare.py.'
    )
  with zipfile.ZipFile(archive) as pack:
    names = sorted(n for n in pack.namelist() if f'/{half}/' in n)
    if most:
      names = names[:: max(1, len(names) // most)][:most]
    contents = [pack.read(name) for name in names]
  if not names:
    raise SystemExit(f'{archive} has no pictures in a folder {half}.')
  # NAME/half/picture or NAME/half/class/picture
  folders = [pathlib.PurePosixPath(name).parent.name for name in names]
  known = sorted(set(folders) - {half})
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    images = list(pool.map(functools.partial(_decode, size), contents))
  path.parent.mkdir(parents=True, exist_ok=True)
  class_names.write(path.parent, known)
  image_files.write_npz(
    path,
    images,
    shape=(len(images), size, size, 3),
    labels=np.int32([known.index(f) if known else 0 for f in folders]),
  )
  return path


def _decode(size, content):
  with Image.open(io.BytesIO(content)) as picture:
    image = np.asarray(picture.convert('RGB'))
  if image.shape == (size, size, 3):
    return image
  return transforms.fit(image, size=size, crop='center', filter='bicubic')
