"""Reads the published sets of super-resolution, and held-out photographs.

A set is pairs of an original and a low-res image. Set5, Set14 and BSD100 are
read as SelfExSR's repository names their files (Set5/x4/img_001_SRF_4_HR.webp,
..._LR.webp, BSD100/HR_full_jpg/img_001__3096.jpg), from a folder or a zip, with
its table selfexsr_tables.json of published scores. Low-res files are taken as
they are.
"""

import io
import json
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np
from PIL import Image

from cdm.data import transforms
from cdm.ops import resize

FACTOR = 4
PUBLISHED = ('Set5', 'Set14', 'BSD100')
HELD_OUT = 'held-out'
_SHRINK = 2  # of held-out photographs first, so that they are sharp


class Pair(NamedTuple):
  """An original and its low-res image.

  Attributes:
    name: of the picture.
    original: uint8 [H, W, 3], cut to FACTOR times the low-res image.
    low: uint8 [h, w, 3].
    is_grey: whether its file has one channel.
    published: PSNR of bicubic, dB; None if it is not known.
  """

  name: str
  original: np.ndarray
  low: np.ndarray
  is_grey: bool = False
  published: float | None = None


def read_published(path: pathlib.Path, name: str) -> list[Pair]:
  """Returns the pairs of one of PUBLISHED at 4x.

  Raises:
    ValueError: the zip or folder has no such set.
  """
  files = _files(path)
  inside = {n: read for n, read in files.items() if f'/{name}/' in f'/{n}'}
  mark = 'HR_full' if name == 'BSD100' else f'_SRF_{FACTOR}_HR'
  originals = sorted(n for n in inside if mark in n)
  if not originals:
    raise ValueError(
      f'{path} has no pictures of {name} at {FACTOR}x; it holds '
      f'{len(files)} files. Give the zip or the folder with {name}/x{FACTOR}.'
    )
  scores = _published_scores(files, name)
  pairs = []
  for i, file in enumerate(originals):
    number = file.rsplit('/', 1)[1][:7]  # 'img_001'
    (low,) = (n for n in inside if f'{number}_SRF_{FACTOR}_LR' in n)
    image, is_grey = _read_image(inside[file]())
    small, _ = _read_image(inside[low]())
    score = scores[i] if scores else None
    pairs.append(_fitted(f'{name}/{number}', image, small, is_grey, score))
  return pairs


def read_held_out(folder: pathlib.Path) -> list[Pair]:
  """Returns the pairs of a folder of photographs, which are halved first."""
  found = sorted(
    p for p in folder.iterdir() if p.is_file() and p.suffix != '.json'
  )
  if not found:
    raise ValueError(f'{folder} has no photographs.')
  pairs = []
  for path in found:
    image, is_grey = _read_image(path.read_bytes())
    unit = _SHRINK * FACTOR
    height, width = (n // unit * unit for n in image.shape[:2])
    half = (height // _SHRINK, width // _SHRINK)
    sharp = transforms.area_resize(image[:height, :width], half)
    size = tuple(n // FACTOR for n in half)
    low = np.asarray(resize.resize_uint8(sharp, size, method='bicubic'))
    pairs.append(_fitted(path.stem, sharp, low, is_grey, None))
  return pairs


def bicubic(low: np.ndarray, factor: float = FACTOR) -> np.ndarray:
  """Enlarges uint8 [h, w, 3] to float32 [H, W, 3] in about [-1, 1].

  By the weights of the one resize, without compiling a program for each size.
  """
  rows, columns = (
    resize.resize_weights(n, round(factor * n), method='bicubic')
    for n in low.shape[:2]
  )
  x = low.astype(np.float64) / 127.5 - 1.0
  x = np.tensordot(rows, x, (1, 0))  # [H, w, 3]
  x = np.tensordot(x, columns, (1, 1))  # [H, 3, W]
  return x.transpose(0, 2, 1).astype(np.float32)


def grey_levels(image: np.ndarray, is_grey: bool) -> np.ndarray:
  """Returns what scores are computed of, float64 [H, W].

  That is the Y of MATLAB's rgb2ycbcr, rounded, as in the papers of these sets;
  of a grey picture its levels.

  Args:
    image: uint8 [H, W, 3].
    is_grey: whether the file of the original has one channel.
  """
  if is_grey:
    return np.round(image.mean(axis=-1))
  return np.round(image @ np.array([65.481, 128.553, 24.966]) / 255 + 16)


def _fitted(name, image, low, is_grey, score):
  """Returns a Pair, cut to the part that both images have.

  The originals of some sets are cropped to a multiple of 4, and some low-res
  images are larger than a quarter of that.
  """
  height, width = (
    min(n, FACTOR * m)
    for n, m in zip(image.shape[:2], low.shape[:2], strict=True)
  )
  return Pair(name, image[:height, :width], low, is_grey, score)


def _files(path):
  """Returns {name: function that reads the bytes} of a zip or a folder."""
  if path.is_dir():
    files = (p for p in sorted(path.rglob('*')) if p.is_file())
    return {p.relative_to(path).as_posix(): p.read_bytes for p in files}
  archive = zipfile.ZipFile(path)
  return {
    name: lambda name=name: archive.read(name) for name in archive.namelist()
  }


def _published_scores(files, name):
  """Returns the PSNR of bicubic of each picture, or None without a table."""
  for file, read in files.items():
    if file.endswith('selfexsr_tables.json'):
      table = json.loads(read())['tables'].get(f'{name}_SRF_{FACTOR}')
      return table and [row[0] for row in table['PSNR']]
  return None


def _read_image(data):
  """Returns (uint8 [H, W, 3], whether its file is grey)."""
  with Image.open(io.BytesIO(data)) as image:
    return np.asarray(image.convert('RGB')), image.mode == 'L'
