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
from cdm.data.printable_name import printable
from cdm.distributed import collectives
from cdm.ops.keys import seed_pairs
from cdm.reporting import contact_sheet, image_files, progress, session_log
from cdm.sampling import (
  neighbour_list,
  numbered_images,
  output_folder,
  own_results,
  picture_tiles,
  search_report,
  stage_record,
  upscale_inputs,
)
from cdm.sampling.background_writer import BackgroundWriter
from cdm.sampling.upscaler import Upscaler, bicubic

FOLDERS = ('lowres', 'bicubic', 'upscaled', 'original')
SHOWN = 24  # images on the overview
OVERVIEW = 'upscaled.png'
MANIFEST = 'upscaling.json'


class Manifest(stage_record.StageManifest):
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

  def write(made):
    for one in made:
      target, text = one.task.picture.target, marks[one.task.number]
      target.parent.mkdir(parents=True, exist_ok=True)
      image_files.write_png(
        target, one.join(upscaler), text={own_results.MARK: text}
      )

  tasks, errors = _tasks(pictures, there), {}
  with _tile_bar(pictures, there) as bar, BackgroundWriter(write) as writer:
    drawing = picture_tiles.Drawing(upscaler, inputs, label, seed, bar.advance)
    for made in picture_tiles.super_resolve(drawing, tasks, errors):
      writer.put(made)
  errors = upscale_inputs.exchange_errors(errors)  # It waits for all, too.
  collectives.barrier('the super-resolved pictures')
  good = [p for n, p in enumerate(pictures) if n not in errors]
  _report_search(upscaler, inputs, good)
  if collectives.is_first():
    for path in targets:
      print(printable(path))
    mark = own_results.digest([*marks, 'overview'])
    write_overview_of_files(
      out,
      upscaler,
      [(p.path, p.target) for p in good if p.num_tiles == 1],
      taken=targets,
      max_value=inputs.max_value,
      mark=mark,
      overwrite=overwrite,
    )
  neighbour_list.write(
    out, upscaler, lambda: _tiles_of_files(out, inputs, pictures, errors)
  )
  refused = [*inputs.refused, *errors.values()]
  if refused:
    total = len(pictures) + len(inputs.refused)
    raise upscale_inputs.failure(refused, total, out)


def _report_search(upscaler, inputs, pictures):
  """Warns of the pictures that a search did not find; a collective."""

  def read_tiles(i):
    _, tiles, places = upscale_inputs.read_again(inputs, pictures[i])
    image = image_decoder.read_pixels(pictures[i].target)
    own = search_report.parts(image, places, inputs.tile, upscaler.factor)
    return tiles, own

  search_report.report(upscaler, [p.target for p in pictures], read_tiles)


def _tiles_of_files(out, inputs, pictures, errors):
  """Returns the names of the results, and the tiles that they were made of."""
  names, tiles = [], []
  for n, picture in enumerate(pictures):
    if n not in errors:
      cut = upscale_inputs.read_again(inputs, picture)[1]
      names += [str(picture.target.relative_to(out))] * len(cut)
      tiles += list(cut)
  return names, tiles


def _tasks(pictures, there) -> list[picture_tiles.Task]:
  """Returns the pictures that are not there yet."""
  tasks, first = [], 0
  for n, (picture, done) in enumerate(zip(pictures, there, strict=True)):
    if not done:
      tasks.append(picture_tiles.Task(n, picture, first))
    first += picture.num_tiles
  return tasks


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


def write_overview_of_files(
  out: pathlib.Path,
  upscaler: Upscaler,
  pictures: Sequence[tuple[pathlib.Path, pathlib.Path]],
  *,
  taken: Sequence[pathlib.Path],
  max_value: float | None,
  mark: str,
  overwrite: bool,
) -> None:
  """Writes the overview of the first pictures, if there are any.

  Args:
    out: output folder.
    upscaler: what has super-resolved them.
    pictures: (path, path of the result) of pictures of the size of its input.
    taken: paths of all results, which the overview does not take.
    max_value: see `upscale_inputs.Inputs`.
    mark: mark of the overview.
    overwrite: whether another file that is no result may be replaced.
  """
  rows = []
  for source, target in pictures[:SHOWN]:
    image = upscale_inputs.read_image(source, max_value)
    x = image_decoder.read_pixels(target)
    rows.append([magnified(image, x), bicubic(image, upscaler), x])
  if rows:
    path = own_results.free_path(
      out, OVERVIEW, taken=taken, mark=mark, overwrite=overwrite
    )
    heads = ('low-res', 'bicubic', 'ours')
    write_overview(path, rows, heads, text={own_results.MARK: mark})


def _marks(inputs, upscaler, label, seed) -> list[str]:
  """Returns the mark of each result, see `own_results`."""
  record = upscaler.record
  stage = None if record is None else record.manifest()
  settings = json.dumps(
    [stage, label, seed, inputs.max_value], sort_keys=True, default=str
  )
  firsts = np.cumsum([0, *(p.num_tiles for p in inputs.pictures)]).tolist()
  # Every process reads a part of the files.
  marks = []
  for i in collectives.local_indices(len(inputs.pictures)):
    data = hashlib.sha256(inputs.pictures[i].path.read_bytes()).digest()
    marks.append(own_results.digest([settings, str(firsts[i]), data]))
  return collectives.in_turn(collectives.gather_objects(marks))


@output_folder.held_by('cdm upscale')
def write_upscaled_held_out(
  out: str | os.PathLike,
  upscaler: Upscaler,
  read_images: Callable[..., tuple[np.ndarray, np.ndarray]],
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
    read_images: the function that `evaluated_images.read_held_out` returns.
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
    writes=(*FOLDERS, OVERVIEW, neighbour_list.FILE),
    overwrite=overwrite,
  )
  output_folder.claim(out, manifest, name=MANIFEST)
  folders = {name: out / name for name in FOLDERS}
  for folder in folders.values():
    folder.mkdir(exist_ok=True)
  kept = numbered_images.NumberedImages(list(folders.values()))
  missing = kept.missing(count)
  done = count - len(missing)
  if done and collectives.is_first():
    print(f'Held-out images: {done} of {count} are already in {out}.')
  if missing:
    bar = progress.Progress('upscaling', total=count, initial=done)

    def write(batches):
      for rows in batches:
        for n, low, x, original in rows:
          versions = (low, bicubic(low, upscaler), x, original)
          for folder, image in zip(kept.folders, versions, strict=True):
            kept.write(folder, n, image)

    with (
      session_log.Session(out, 'upscale'),
      bar,
      BackgroundWriter(write) as writer,
    ):
      bar.compiling()
      for start in range(0, len(missing), upscaler.batch_size):
        indices = missing[start : start + upscaler.batch_size]
        writer.put(draw_own(upscaler, read_images, indices, seed))
        bar.advance(len(indices))
  collectives.barrier('upscaled')

  def read_tiles(n):
    low, x = (
      image_decoder.read_pixels(kept.path(folders[name], n))
      for name in ('lowres', 'upscaled')
    )
    return low[None], x[None]

  names = [kept.path(folders['upscaled'], n) for n in range(count)]
  search_report.report(upscaler, names, read_tiles)
  neighbour_list.write(out, upscaler, lambda: _held_out_inputs(kept, count))
  if collectives.is_first():
    write_held_out_overview(out, kept, read_images, count, class_names)


def _held_out_inputs(kept, count):
  """Returns the names of the results, and their low-res images."""
  folder = kept.folders[FOLDERS.index('lowres')]
  paths = [kept.path(folder, n) for n in range(count)]
  images = [image_decoder.read_pixels(path) for path in paths]
  return [str(path.relative_to(folder)) for path in paths], images


def draw_own(
  upscaler: Upscaler,
  read_images: Callable[..., tuple[np.ndarray, np.ndarray]],
  indices: Sequence[int],
  seed: int,
) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
  """Shrinks and super-resolves held-out images, of which each process has some.

  A collective: every process must call it.

  Args:
    upscaler: `Upscaler`.
    read_images: see `write_upscaled_held_out`.
    indices: the images of a batch, which is filled up.
    seed: seed of the samples.

  Returns:
    [(index, low-res [h, w, 3], super-resolved, original [H, W, 3]), ...], the
    images that this process's devices drew, all uint8.
  """
  size = upscaler.padded_count(len(indices))
  positions = upscaler.local_rows(size) % len(indices)
  own = sorted(set(positions.tolist()))
  if len(own) == len(indices):
    originals, labels = read_images(indices)
  else:
    originals, labels = read_images(indices, own)
  place = np.searchsorted(own, positions)
  results = upscaler.upscale_rows(
    originals[place],
    keys=seed_pairs(seed, np.asarray(indices)[positions]),
    label=np.asarray(labels)[place],
  )
  original_of = dict(zip(own, originals, strict=True))
  return [
    (indices[row], low, x, original_of[row])
    for row, low, x in results
    if row < len(indices)
  ]


def write_held_out_overview(
  out: pathlib.Path,
  kept: numbered_images.NumberedImages,
  read_images: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]],
  count: int,
  class_names: Sequence[str] | None,
) -> None:
  """Writes upscaled.png, with equally many images of each class if possible.

  Args:
    out: output folder.
    kept: the images, in a folder for each of `FOLDERS`.
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
      image_decoder.read_pixels(kept.path(folder, n)) for folder in kept.folders
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
