"""Super-resolves image files or held-out images into an output folder.

Every result is a PNG of its own, and an overview shows the results beside the
low-res images and their bicubic interpolation.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cdm.data import image_decoder
from cdm.data.files import atomic_files
from cdm.data.printable_name import printable
from cdm.distributed import collectives
from cdm.ops import tiling
from cdm.ops.keys import seed_pairs
from cdm.reporting import contact_sheet, image_files, progress, session_log
from cdm.sampling import output_folder, own_results, restore, upscale_inputs
from cdm.sampling.upscaler import Upscaler, bicubic

FOLDERS = ('lowres', 'bicubic', 'upscaled', 'original')
SHOWN = 24  # images on the overview
OVERVIEW = 'upscaled.png'
MANIFEST = 'upscaling.json'


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


@output_folder.held_by('cdm upscale')
def write_upscaled_files(
  out: str | os.PathLike,
  upscaler: Upscaler,
  inputs: upscale_inputs.Inputs,
  label: int | None,
  *,
  seed: int,
  overwrite: bool = False,
) -> None:
  """Super-resolves image files into a folder, one PNG for each file.

  An image larger than the upscaler's input is cut into tiles. The overview
  shows only the images that are a single tile. A result that this command wrote
  before with the same settings is kept, so that a run that was interrupted
  continues.

  Args:
    out: output folder; made if it is missing.
    upscaler: `Upscaler`.
    inputs: the picture files; see `upscale_inputs.check`.
    label: class of all images, or None.
    seed: seed of the samples; the tiles of all files are numbered in turn.
    overwrite: whether other files that have the names of results are replaced.

  Raises:
    ValueError: a file that lies in `out` has the name of a result, or an input
      was refused; the other files have been written then.
  """
  out, pictures = pathlib.Path(out), inputs.pictures
  targets = [picture.target for picture in pictures]
  marks = _marks(inputs, upscaler, label, seed)
  there = own_results.are_written(targets, marks, overwrite=overwrite)
  out.mkdir(parents=True, exist_ok=True)
  if any(there) and collectives.is_first():
    print(f'Pictures: {sum(there)} of {len(pictures)} are already in {out}.')
  refused, rows, first = list(inputs.refused), [], 0
  with _tile_bar(pictures, there) as bar:
    for picture, mark, done in zip(pictures, marks, there, strict=True):
      keys = seed_pairs(seed, np.arange(first, first + picture.num_tiles))
      first += picture.num_tiles
      if done:
        rows += _row(upscaler, inputs, picture) if len(rows) < SHOWN else []
        continue
      try:
        cut = upscale_inputs.read_again(inputs, picture)
      except ValueError as error:
        if collectives.process_count() > 1:
          raise  # The other processes go on with this picture.
        refused.append(error)
        continue
      x = _super_resolve(upscaler, cut, keys, label, bar)
      if collectives.is_first():
        picture.target.parent.mkdir(parents=True, exist_ok=True)
        text = {own_results.MARK: mark}
        image_files.write_png(picture.target, x, text=text)
        rows += _row(upscaler, inputs, picture) if len(rows) < SHOWN else []
  if collectives.is_first():
    for path in targets:
      print(printable(path))
    if rows:
      mark = own_results.digest([*marks, 'overview'])
      path = own_results.free_path(
        out, OVERVIEW, taken=targets, mark=mark, overwrite=overwrite
      )
      heads = ('low-res', 'bicubic', 'ours')
      write_overview(path, rows, heads, text={own_results.MARK: mark})
  if refused:
    total = len(pictures) + len(inputs.refused)
    raise upscale_inputs.failure(refused, total, out)


def _tile_bar(pictures, there):
  """Returns the progress over all tiles, of which some are there already."""
  counts = [picture.num_tiles for picture in pictures]
  bar = progress.Progress(
    'upscaling',
    total=sum(counts),
    initial=sum(n for n, done in zip(counts, there, strict=True) if done),
    unit='tile',
  )
  bar.compiling()
  return bar


def _super_resolve(upscaler, cut, keys, label, bar):
  """Returns the super-resolved image, uint8, of a picture that was cut."""
  image, tiles, places = cut
  labels = None if label is None else np.full(len(tiles), label, np.int32)
  return tiling.blend(
    upscaler(
      tiles, keys=keys[: len(tiles)], label=labels, on_batch=bar.advance
    ),
    places,
    shape=image.shape[:2],
    factor=upscaler.factor,
  )


def _row(upscaler, inputs, picture):
  """Returns [row of the overview], or [] for a picture of several tiles."""
  if picture.num_tiles > 1:
    return []
  image = upscale_inputs.read_image(picture.path, inputs.max_value)
  x = image_decoder.read_pixels(picture.target)
  return [[magnified(image, x), bicubic(image, upscaler), x]]


def _marks(inputs, upscaler, label, seed) -> list[str]:
  """Returns the mark of each result, see `own_results`."""
  record = upscaler.record
  stage = None if record is None else record.manifest()
  settings = json.dumps(
    [stage, label, seed, inputs.max_value], sort_keys=True, default=str
  )
  marks, first = [], 0
  for picture in inputs.pictures:
    data = hashlib.sha256(picture.path.read_bytes()).digest()
    marks.append(own_results.digest([settings, str(first), data]))
    first += picture.num_tiles
  return marks


@output_folder.held_by('cdm upscale')
def write_upscaled_held_out(
  out: str | os.PathLike,
  upscaler: Upscaler,
  read_images: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]],
  *,
  count: int,
  seed: int,
  manifest: Manifest,
  class_names: Sequence[str] | None = None,
  overwrite: bool = False,
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
    overwrite: whether what other settings wrote into the folder is removed.

  Raises:
    ValueError: the folder has another manifest, or other files of the names
      that are written, or another run writes into it.
  """
  out = pathlib.Path(out)
  output_folder.make_room(
    out,
    manifest,
    name=MANIFEST,
    writes=(*FOLDERS, OVERVIEW),
    overwrite=overwrite,
  )
  output_folder.claim(out, manifest, name=MANIFEST)
  folders = {name: out / name for name in FOLDERS}
  for folder in folders.values():
    folder.mkdir(exist_ok=True)
    atomic_files.remove_abandoned(folder)
  missing = output_folder.broadcast_missing_images(folders.values(), count)
  done = count - len(missing)
  if done:
    print(f'Held-out images: {done} of {count} are already in {out}.')
  if missing:
    bar = progress.Progress('upscaling', total=count, initial=done)
    with session_log.Session(out, 'upscale'), bar:
      bar.compiling()
      for start in range(0, len(missing), upscaler.batch_size):
        indices = missing[start : start + upscaler.batch_size]
        originals, labels = read_images(indices)
        keys = seed_pairs(seed, indices)
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
    keys: uint32 [N, 2], see `ops.keys.seed_pairs`.

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
      image_decoder.read_pixels(folders[name] / output_folder.file_name(n))
      for name in FOLDERS
    )
    rows.append([magnified(low, others[0]), *others])
  names = None
  if class_names:
    label_of = dict(zip(indices, labels, strict=True))
    names = [class_names[label_of[n]] for n in chosen]
  write_overview(
    out / OVERVIEW, rows, ('low-res', 'bicubic', 'ours', 'original'), names
  )


def write_overview(
  path: pathlib.Path,
  rows: list[list[Any]],
  heads: Sequence[str | None],
  names: Sequence[str] | None = None,
  *,
  text: Mapping[str, str] | None = None,
) -> None:
  """Writes the overview, a contact sheet.

  More than 8 rows are laid out in two groups of columns, side by side.

  Args:
    path: path of the PNG.
    rows: uint8 [S, S, 3] images of every row.
    heads: titles of the columns.
    names: titles of the rows, or None.
    text: text entries of the PNG, or None.
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
  image_files.write_png(path, image, text=text)
  print(f'{printable(path)}: {", ".join(h for h in heads if h)}')


def magnified(image: np.ndarray, like: np.ndarray) -> np.ndarray:
  """Returns `image` in the size of `like`, with every pixel as a square."""
  return contact_sheet.magnify(image, like.shape[0])
