"""Reads the 68 points of every face of FFHQ from its ffhq-dataset-v2.json.

  {"0": {"image": {"file_path": "images1024x1024/00000/00000.png",
                   "pixel_size": [1024, 1024],
                   "face_landmarks": [[x, y], ...], ...},
         "in_the_wild": {...}, ...}, ...}

The points are those of dlib's predictor, in the order of the iBUG 300-W marks.
They lie in the pixels of the aligned picture of 1024 x 1024, so they fit its
thumbnails and every other copy that shows the whole picture.
"""

import json
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cdm.data import landmark_file, picture_names
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable

# (the first point at the left of a picture, the one that it changes places with
# in a mirrored picture, how many follow, step of the second): jaw, brows,
# nostrils, upper and lower lids, and the outer and inner edge of the lips.
_PAIRS = (
  (0, 16, 8, -1),
  (17, 26, 5, -1),
  (31, 35, 2, -1),
  (36, 45, 4, -1),
  (40, 47, 2, -1),
  (48, 54, 3, -1),
  (58, 56, 1, 1),
  (59, 55, 1, 1),
  (60, 64, 2, -1),
  (67, 65, 1, 1),
)
_NUM_POINTS = 68
_REMEDY = 'Give ffhq-dataset-v2.json, as it comes with FFHQ.'


def is_one(path: str | os.PathLike[str]) -> bool:
  """Returns whether a file begins as one of JSON; False if it has no bytes."""
  try:
    with open(os.path.expanduser(path), 'rb') as file:
      return file.read(64).lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'{')
  except OSError:
    return False


def point_names() -> tuple[str, ...]:
  """Returns the names of the points 0 to 67, which tell left from right.

  They are left_N and right_N of what changes places in a mirrored picture, N
  the number of the point at the left of the picture, and middle_N of the rest.
  """
  names = [f'middle_{i:02d}' for i in range(_NUM_POINTS)]
  for first, other, count, step in _PAIRS:
    for k in range(count):
      names[first + k] = f'left_{first + k:02d}'
      names[other + step * k] = f'right_{first + k:02d}'
  return tuple(names)


class _Face(NamedTuple):
  """One picture of the file."""

  path: str
  size: tuple[int, int]  # width, height
  points: np.ndarray  # float32 [68, 2]


def read(
  path: str | os.PathLike[str], files: Sequence[str]
) -> landmark_file.Landmarks:
  """Returns the points that the file gives to every picture.

  Args:
    path: the file. It may have other pictures too.
    files: the paths of the pictures, with forward slashes.

  Raises:
    DamagedFile: the file is damaged.
    ValueError: it is another file, or has a picture not at all or twice.
  """
  listing = f'the landmark file {printable(os.fspath(path))}'
  faces = _faces(path, listing)
  sizes = {face.size for face in faces}
  if len(sizes) != 1:
    raise DamagedFile(
      f'{listing} has points of pictures of {len(sizes)} sizes. {_REMEDY}'
    )
  given = [(n, face.path) for n, face in enumerate(faces, 1)]
  table = picture_names.table(files, (name for _, name in given))
  if table is None:
    # Copies of the pictures have other folders, and often are no PNG files.
    stems = (os.path.splitext(os.path.basename(name))[0] for _, name in given)
    given = list(enumerate(stems, 1))
    table = picture_names.table(files, (name for _, name in given))
  chosen = picture_names.lines_of(
    files, table, given, listing, others=True, line='Picture'
  )
  points = np.stack([faces[n].points for n in chosen])
  return landmark_file.Landmarks(point_names(), points, sizes.pop())


def _faces(path, listing):
  """Returns the faces of the file, in its order."""
  try:
    with open(os.path.expanduser(path), encoding='utf-8-sig') as file:
      # 255 MB of text hold 38 million numbers. As each face is made into an
      # array at once, they never are Python objects all together.
      found = json.load(file, object_hook=lambda d: _compact(d, listing))
  except OSError as error:
    raise ValueError(f'{listing}: {error.strerror}. {_REMEDY}') from error
  except (UnicodeDecodeError, json.JSONDecodeError) as error:
    raise DamagedFile(f'{listing} is damaged: {error}. {_REMEDY}') from error
  faces = [face for face in found.values() if isinstance(face, _Face)]
  if not faces or len(faces) != len(found):
    raise ValueError(
      f'{listing} has {len(found):,} entries, of which {len(faces):,} have an '
      f"'image' with 'face_landmarks'. {_REMEDY}"
    )
  return faces


def _compact(entry, listing):
  """Returns a `_Face` for an object that is or holds one, else the object."""
  if isinstance(image := entry.get('image'), _Face):
    return image
  if 'face_landmarks' not in entry or 'face_rect' in entry:
    return entry  # `face_rect` is of the picture before it was aligned.
  try:
    points = np.array(entry['face_landmarks'], np.float32)
    width, height = entry['pixel_size']
    name = entry['file_path']
  except (KeyError, TypeError, ValueError) as error:
    raise DamagedFile(
      f'{listing} has an image without a path, size or points ({error}). '
      f'{_REMEDY}'
    ) from error
  if points.shape != (_NUM_POINTS, 2) or not np.isfinite(points).all():
    raise DamagedFile(
      f'{listing} has points of shape {points.shape} for {printable(name)}; '
      f'{_NUM_POINTS} of two finite numbers are expected. {_REMEDY}'
    )
  return _Face(name, (int(width), int(height)), points)
