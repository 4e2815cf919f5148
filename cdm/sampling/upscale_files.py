"""Super-resolves image files or held-out images into an output folder.

Every result is a PNG of its own, and an overview shows the results beside the
low-res images and their bicubic interpolation.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cdm.data import transforms
from cdm.distributed import collectives
from cdm.ops import tiling
from cdm.ops.keys import image_pairs
from cdm.reporting import contact_sheet, image_files, progress, session_log
from cdm.sampling import output_folder, restore
from cdm.sampling.upscaler import Upscaler, bicubic

FOLDERS = ('lowres', 'bicubic', 'upscaled', 'original')
SHOWN = 24  # images on the overview


class Manifest(restore.StageManifest):
  """The settings of super-resolved held-out images, as in upscaling.json.

  Attributes:
    seed: seed of the samples.
    count: number of images.
    eval_data: the `eval_data` section that the images come from.
  """

  seed: int
  count: int
  eval_data: dict[str, Any]


def write_upscaled_files(
  out: str | os.PathLike,
  upscaler: Upscaler,
  paths: Sequence[pathlib.Path],
  label: int | None,
  *,
  seed: int,
) -> None:
  """Super-resolves image files into a folder, one PNG for each file.

  An image larger than the upscaler's input is cut into tiles. The overview
  shows only the images that are a single tile.

  Args:
    out: output folder; made if it is missing.
    upscaler: `Upscaler`.
    paths: image files, each at least as large as one tile.
    label: class of all images, or None.
    seed: seed of the samples; the tiles of all files are numbered in turn.

  Raises:
    ValueError: a file is not an image or is too small, or a result would
      overwrite another result or an input.
  """
  out = pathlib.Path(out)
  path_of = {}
  for path in paths:
    target = out / f'{path.stem}.png'
    if target in path_of:
      raise ValueError(
        f'{path_of[target]} and {path} would both become {target}; rename one.'
      )
    if target.resolve() == path.resolve():
      raise ValueError(
        f'{path} would be overwritten by its own result; give another --out.'
      )
    path_of[target] = path
  # All files are read before work begins, so that a bad file is found early.
  for path in paths:
    read_and_cut(path, upscaler)
  out.mkdir(parents=True, exist_ok=True)
  rows, first = [], 0
  with progress.Progress('upscaling', total=len(paths)) as bar:
    bar.say('upscaling: compiling ...')
    for target, path in path_of.items():
      image, tiles, places = read_and_cut(path, upscaler)
      labels = None if label is None else np.full(len(tiles), label, np.int32)
      indices = np.arange(first, first + len(tiles))
      first += len(tiles)
      x = tiling.blend(
        upscaler(tiles, keys=image_pairs(seed, indices), label=labels),
        places,
        shape=image.shape[:2],
        factor=upscaler.factor,
      )
      if collectives.is_first():
        image_files.write_png(target, x)
      if image.shape[:2] == (upscaler.lowres_size,) * 2:
        rows.append([magnified(image, x), bicubic(image, upscaler), x])
      bar.advance(1)
  for target in path_of:
    print(target)
  if rows and collectives.is_first():
    write_overview(out, rows[:SHOWN], ('low-res', 'bicubic', 'ours'))


def read_and_cut(
  path: pathlib.Path, upscaler: Upscaler
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
  """Reads an image file and cuts it into tiles of the upscaler's input size.

  Returns:
    (image uint8 [h, w, 3], tiles uint8 [N, S, S, 3], [(top, left), ...]).

  Raises:
    ValueError: the file is not an image, or too small; the message names it.
  """
  image = read_image(path)
  try:
    return image, *tiling.cut(image, upscaler.lowres_size)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def write_upscaled_held_out(
  out: str | os.PathLike,
  upscaler: Upscaler,
  read_images: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]],
  *,
  count: int,
  seed: int,
  manifest: Manifest,
  class_names: Sequence[str] | None = None,
) -> None:
  """Shrinks and super-resolves held-out images; writes all four versions.

  Every image is a file that appears only when it is complete, so a restart
  continues the folder.

  Args:
    out: output folder; made if it is missing.
    upscaler: `Upscaler`.
    read_images: the function that `datasets.read_held_out` returns.
    count: number of images.
    seed: seed of the samples.
    manifest: manifest of the folder.
    class_names: names of the classes for the overview, or None.

  Raises:
    ValueError: the folder has another manifest.
  """
  out = pathlib.Path(out)
  output_folder.claim(out, manifest, name='upscaling.json')
  folders = {name: out / name for name in FOLDERS}
  for folder in folders.values():
    folder.mkdir(exist_ok=True)
  missing = output_folder.broadcast_missing_images(folders.values(), count)
  done = count - len(missing)
  if done:
    print(f'Held-out images: {done} of {count} are already in {out}.')
  if missing:
    bar = progress.Progress('upscaling', total=count, initial=done)
    with session_log.Session(out, 'upscale'), bar:
      bar.say('upscaling: compiling ...')
      for start in range(0, len(missing), upscaler.batch_size):
        indices = missing[start : start + upscaler.batch_size]
        originals, labels = read_images(indices)
        keys = image_pairs(seed, indices)
        versions = make_versions(upscaler, originals, labels, keys)
        for name, stack in zip(FOLDERS, versions, strict=True):
          for i in collectives.local_indices(len(indices)):
            file = folders[name] / output_folder.file_name(indices[i])
            image_files.write_png(file, stack[i])
        bar.advance(len(indices))
  collectives.barrier('upscaled')
  if collectives.is_first():
    write_held_out_overview(out, folders, read_images, count, class_names)


def make_versions(
  upscaler: Upscaler,
  originals: np.ndarray,
  labels: np.ndarray | None,
  keys: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Makes the four versions of a batch of original images, as in `FOLDERS`.

  Args:
    upscaler: `Upscaler`.
    originals: uint8 [N, H, W, 3].
    labels: int [N], or None.
    keys: uint32 [N, 2], see `ops.keys.image_pairs`.

  Returns:
    (low-res [N, h, w, 3], bicubic, super-resolved, originals), all uint8; the
    last three are [N, H, W, 3].
  """
  low = upscaler.shrink(originals)
  x = upscaler(low, keys=keys, label=labels)
  return low, np.stack([bicubic(z, upscaler) for z in low]), x, originals


def write_held_out_overview(
  out: pathlib.Path,
  folders: Mapping[str, pathlib.Path],
  read_images: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]],
  count: int,
  class_names: Sequence[str] | None,
) -> None:
  """Writes upscaled.png, with equally many images of each class if possible.

  Args:
    out: output folder.
    folders: {version: folder of its images}, see `FOLDERS`.
    read_images: see `write_upscaled_held_out`.
    count: number of images in each folder.
    class_names: names of the classes, or None.
  """
  num_considered = min(count, 10 * SHOWN)
  indices = [i * count // num_considered for i in range(num_considered)]
  labels = read_images(indices)[1]
  per_class = max(1, SHOWN // len(np.unique(labels)))
  chosen = []
  for label in np.unique(labels)[:SHOWN]:
    chosen += [n for n, x in zip(indices, labels, strict=True) if x == label][
      :per_class
    ]
  rows = []
  for n in chosen:
    low, *others = (
      image_files.read_png(folders[name] / output_folder.file_name(n))
      for name in FOLDERS
    )
    rows.append([magnified(low, others[0]), *others])
  names = None
  if class_names:
    label_of = dict(zip(indices, labels, strict=True))
    names = [class_names[label_of[n]] for n in chosen]
  write_overview(out, rows, ('low-res', 'bicubic', 'ours', 'original'), names)


def write_overview(
  out: pathlib.Path,
  rows: list[list[Any]],
  heads: Sequence[str | None],
  names: Sequence[str] | None = None,
) -> None:
  """Writes the contact sheet upscaled.png.

  More than 8 rows are laid out in two groups of columns, side by side.

  Args:
    out: output folder.
    rows: uint8 [S, S, 3] images of every row.
    heads: titles of the columns.
    names: titles of the rows, or None.
  """
  side = rows[0][0].shape[0]
  if len(rows) > 8:
    half = (len(rows) + 1) // 2
    left, right = rows[:half], rows[half:]
    right += [right[-1]] * (half - len(right))
    heads = (*heads, None, *heads)
    if names:
      second = [*names[half:], names[-1]][:half]
      names = [
        a if a == b else f'{a} | {b}'
        for a, b in zip(names[:half], second, strict=True)
      ]
    rows = [[*a, None, *b] for a, b in zip(left, right, strict=True)]
  image = contact_sheet.sheet(
    rows, names=names, heads=heads, scale=max(1, 96 // side)
  )
  image_files.write_png(out / 'upscaled.png', image)
  print(f'{out / "upscaled.png"}: {", ".join(h for h in heads if h)}')


def magnified(image: np.ndarray, like: np.ndarray) -> np.ndarray:
  """Returns `image` in the size of `like`, with every pixel as a square."""
  return contact_sheet.magnify(image, like.shape[0])


def read_image(path: pathlib.Path) -> np.ndarray:
  """Returns an image file as uint8 [h, w, 3].

  Raises:
    ValueError: there is no such file, or it is not an image.
  """
  if not path.is_file():
    raise ValueError(f'{path}: there is no such file.')
  try:
    return transforms.decode(path.read_bytes(), name=str(path))
  except transforms.BadImage as error:
    raise ValueError(f'{error}') from None
