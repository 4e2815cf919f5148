"""Draws the samples of a cascade into an output folder.

Images are kept as PNG files or, where they are many, in ArrayRecord shards (see
`sample_storage`). A file or a shard appears only when it is complete, so a
restart draws exactly what is missing. OUT/sampling.json, the manifest, holds
every setting that the images depend on; images drawn with other settings are
never mixed in.
"""

import os
import pathlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import NotRequired, TypedDict

import jax
import numpy as np

from cdm.data import (
  array_record,
  image_decoder,
  npz_images,
  record_format,
)
from cdm.data import source as source_contract
from cdm.data.class_names import write as write_class_names
from cdm.data.files import atomic_files
from cdm.distributed import collectives, device_mesh
from cdm.reporting import contact_sheet, image_files, progress, session_log
from cdm.sampling import (
  cascade,
  numbered_images,
  output_folder,
  sample_shards,
  sample_storage,
  stage_record,
  start_images,
)
from cdm.sampling.background_writer import BackgroundWriter
from cdm.sampling.one_ahead import one_ahead

ROW = 4  # images per class on the overview
# What is written beside one folder of images per stage.
OVERVIEW = 'samples.png'
FILES = (OVERVIEW, 'samples.npz', 'classes.json')


class Manifest(TypedDict):
  """The settings that samples depend on, the content of sampling.json.

  Attributes:
    config: name of the config of the cascade, or of the single stage.
    seed: seed of all images.
    labels: the labels to draw in rotation; None if no stage takes a label.
    stages: the stages of the cascade, the base model first.
    storage: how the images are kept; None or absent for PNG files.
    start_images: the images that the base model begins at, see `start_images`;
      absent if it begins at noise.
  """

  config: str
  seed: int
  labels: list[int] | None
  stages: list[stage_record.CascadeEntry]
  storage: NotRequired[record_format.Storage | None]
  start_images: NotRequired[start_images.Manifest]


@output_folder.held_by('cdm sample')
def draw_to_folder(
  out: str | os.PathLike,
  stages: Sequence[cascade.Stage],
  *,
  manifest: Manifest,
  num: int,
  batch_size: int,
  class_names: Sequence[str] | None = None,
  overwrite: bool = False,
  storage: sample_storage.Storage = sample_storage.PNG_FILES,
) -> None:
  """Draws images 0 to num - 1 into a folder, with an overview of them.

  PNG files also come as one archive, shards do not.

  Args:
    out: folder; made if it is missing, continued if its manifest is `manifest`.
    stages: the stages of the cascade, the base model first.
    manifest: manifest of the folder.
    num: number of images.
    batch_size: number of images that are drawn at once.
    class_names: names of the classes for the overview, or None.
    overwrite: whether what other settings wrote into the folder is removed.
    storage: how the images are kept.

  Raises:
    ValueError: the folder has another manifest, or other files of the names
      that are written, or another run draws into it, or the disk is too full.
  """
  out = pathlib.Path(out)
  manifest = {**manifest, 'storage': storage.manifest(stages, num)}
  output_folder.make_room(
    out,
    manifest,
    name='sampling.json',
    writes=(*(stage.name for stage in stages), *FILES),
    overwrite=overwrite,
  )
  output_folder.claim(out, manifest, name='sampling.json')
  labels = label_cycle(manifest['labels'], num)
  kept = storage.stages(stages)
  folders = [out / stage.name for stage in kept]
  for folder in folders:
    folder.mkdir(exist_ok=True)
  images = shards = None
  if storage.format == 'png':
    images = numbered_images.NumberedImages(folders)
    missing = images.missing(num)
    absent = len(missing)
  else:
    if collectives.is_first():
      for folder in folders:
        atomic_files.remove_abandoned(folder)
    shards = sample_shards.shard_set(out, kept, manifest, class_names)
    missing = shards.missing()
    absent = sum(len(shards.layout.images(k)) for k in missing)
  if absent < num and collectives.is_first():
    print(f'Samples: {num - absent} of {num} are already in {out}.')
  sample_storage.check_space(out, storage, stages, missing=absent, num=num)
  if missing:
    given = (stages, manifest['seed'], labels, missing, num, batch_size)
    with session_log.Session(out, 'sample'):
      if images is not None:
        draw_missing(images, *given)
      elif shards is not None:
        draw_missing_shards(shards, *given)
  collectives.barrier('samples')
  if collectives.is_first():
    if shards is not None:
      if missing or not (shards.finished and (out / OVERVIEW).exists()):
        finish_shards(out, shards, kept, labels, class_names)
    elif images is not None and (missing or not is_assembled(out, num)):
      assemble(out, images, kept, labels, num, class_names)


def padded_batch_size(
  stages: Sequence[cascade.Stage], num: int, batch_size: int
) -> int:
  """Returns the number of images of every batch.

  It follows from `num`, not from the number of missing images: another shape
  gives another program, which may round differently, and a continued run must
  write the same bytes.
  """
  batch_size = min(batch_size, num)
  if stages[0].mesh is None:
    return batch_size
  return device_mesh.padded_batch_size(batch_size, stages[0].mesh)


def draw_missing(
  kept: numbered_images.NumberedImages,
  stages: Sequence[cascade.Stage],
  seed: int,
  labels: np.ndarray | None,
  missing: Sequence[int],
  num: int,
  batch_size: int,
) -> None:
  """Draws the missing images and writes those of every stage to its folder.

  With several processes, each writes the images that its own devices drew.

  Args:
    kept: the images, in a folder for every stage.
    stages: the stages of the cascade.
    seed: seed of all images.
    labels: int32 [num], or None.
    missing: indices of the images to draw.
    num: number of images of the whole run.
    batch_size: number of images that are drawn at once.
  """
  draw = cascade.sampler(stages)
  batch_size = padded_batch_size(stages, num, batch_size)
  done = num - len(missing)

  begun = begin_batches(draw, seed, labels, missing, batch_size)

  def write(batches):
    for indices, drawn in batches:
      drawn = drawn[-len(kept.folders) :]
      for folder, images in zip(kept.folders, drawn, strict=True):
        for row, image in device_mesh.local_images(images):
          if row < len(indices):
            kept.write(folder, indices[row], image)

  with (
    progress.Progress('sampling', total=num, initial=done) as bar,
    BackgroundWriter(write) as writer,
  ):
    bar.compiling()
    for indices, drawn in one_ahead(begun):
      # The devices draw the next batch while the thread writes this one.
      writer.put((indices, jax.block_until_ready(drawn)))
      bar.advance(len(indices))


def begin_batches(
  draw: Callable[..., list[jax.Array]],
  seed: int,
  labels: np.ndarray | None,
  missing: Sequence[int],
  batch_size: int,
) -> Iterator[tuple[Sequence[int], list[jax.Array]]]:
  """Begins to draw one batch after the other.

  Args:
    draw: what `cascade.sampler` returns.
    seed, labels, missing: see `draw_missing`.
    batch_size: number of images of each, see `padded_batch_size`.

  Yields:
    (indices of the images, images of every stage, of which the first
    len(indices) are those).
  """
  for start in range(0, len(missing), batch_size):
    indices = missing[start : start + batch_size]
    # The last batch is filled up, so that only one shape is compiled.
    filled = np.resize(indices, batch_size)
    drawn = draw(seed, filled, None if labels is None else labels[filled])
    yield indices, drawn


def draw_missing_shards(
  shards: sample_shards.ShardSet,
  stages: Sequence[cascade.Stage],
  seed: int,
  labels: np.ndarray | None,
  missing: Sequence[int],
  num: int,
  batch_size: int,
) -> None:
  """Draws the missing shards, see `draw_missing`."""
  sample_shards.draw_missing(
    cascade.sampler(stages),
    shards,
    missing,
    seed=seed,
    labels=labels,
    batch_size=padded_batch_size(stages, num, batch_size),
    mesh=stages[0].mesh,
  )


def is_assembled(out: pathlib.Path, num: int) -> bool:
  """Returns whether samples.png exists and samples.npz holds `num` images.

  If so, `assemble` need not read all images again; reading a million images
  takes longer than drawing a few.
  """
  try:
    count = npz_images.count(out / 'samples.npz')
  except (FileNotFoundError, ValueError):
    return False
  return count == num and (out / OVERVIEW).exists()


def assemble(
  out: pathlib.Path,
  images: numbered_images.NumberedImages,
  stages: Sequence[cascade.Stage],
  labels: np.ndarray | None,
  num: int,
  class_names: Sequence[str] | None,
) -> None:
  """Writes samples.npz, the names of its classes, and samples.png."""
  size = stages[-1].image_size
  readers = [_png_reader(images, folder) for folder in images.folders]
  write_overview(out, stages, readers, labels, num, class_names)
  # The archive is written last, so that the other files exist when it does.
  image_files.write_npz(
    out / 'samples.npz',
    images.read_all(images.folders[-1], num),
    shape=(num, size, size, 3),
    labels=labels,
  )
  print(f'{num} images of {size}x{size} pixels in {out}:')
  print(f'  {out / OVERVIEW}  {out / "samples.npz"}')


def _png_reader(images, folder):
  return lambda n: image_decoder.read_pixels(images.path(folder, n))


def finish_shards(
  out: pathlib.Path,
  shards: sample_shards.ShardSet,
  stages: Sequence[cascade.Stage],
  labels: np.ndarray | None,
  class_names: Sequence[str] | None,
) -> None:
  """Writes the indices of the shards, the names of the classes, samples.png."""
  layout, size = shards.layout, stages[-1].image_size
  shards.finish()
  sources = [array_record.ArrayRecords(folder) for folder in shards.folders]
  readers = [_record_reader(source) for source in sources]
  num, words = layout.num, shlex.quote(str(out))
  write_overview(out, stages, readers, labels, num, class_names)
  print(
    f'{num} images of {size}x{size} pixels in {layout.num_shards} shards, in '
    f'{shards.folders[-1]}; {out / OVERVIEW} shows some.\n'
    f'Read them with --samples={words}, or train on them with '
    '--config.train_data.kind=array_records '
    f'--config.train_data.path={words}'
  )


def _record_reader(source):
  return lambda n: source_contract.read(source, n)['image']


def write_overview(
  out: pathlib.Path,
  stages: Sequence[cascade.Stage],
  readers: Sequence[Callable[[int], np.ndarray]],
  labels: np.ndarray | None,
  num: int,
  class_names: Sequence[str] | None,
) -> None:
  """Writes samples.png and, if the classes have names, classes.json.

  Args:
    out: output folder.
    stages: the stages whose images are kept.
    readers: for each of them, the function from n to its image n.
    labels: int32 [num], or None.
    num: number of images.
    class_names: names of the classes; None if they have none.
  """
  if labels is not None and class_names:
    write_class_names(out, class_names)
  image_files.write_png(
    out / OVERVIEW, overview(stages, readers, labels, num, class_names)
  )


def overview(
  stages: Sequence[cascade.Stage],
  readers: Sequence[Callable[[int], np.ndarray]],
  labels: np.ndarray | None,
  num: int,
  class_names: Sequence[str] | None,
) -> np.ndarray:
  """Returns a contact sheet with a row per class, uint8 [height, width, 3].

  Every image is shown beside the images of its earlier stages. The sheet has at
  most 16 classes and `ROW` images of each; without labels, at most 8 rows.
  """
  shown = [None] if labels is None else np.unique(labels[:num]).tolist()
  rows, names = [], []
  for label in shown[:16]:
    if labels is None:
      chosen = list(range(min(num, ROW * 8)))
    else:
      chosen = np.flatnonzero(labels[:num] == label)[:ROW].tolist()
    for start in range(0, len(chosen), ROW):
      row = []
      for n in chosen[start : start + ROW]:
        row += [None] if row else []
        for read in readers:
          row.append(contact_sheet.magnify(read(n), stages[-1].image_size))
      rows.append(row)
      name = '' if label is None else str(label)
      if label is not None and class_names and label < len(class_names):
        name = class_names[label]
      names.append(name)
  group = [stage.name for stage in stages]
  heads = group + [None, *group] * (ROW - 1)
  width = max(len(row) for row in rows)
  scale = max(1, 64 // stages[-1].image_size)
  return contact_sheet.sheet(
    rows,
    names=names if labels is not None else None,
    heads=heads[:width] if len(stages) > 1 else None,
    scale=scale,
  )


def label_cycle(labels: Sequence[int] | None, num: int) -> np.ndarray | None:
  """Returns the labels repeated to int32 [num], or None for None."""
  if labels is None:
    return None
  return np.resize(np.asarray(labels, np.int32), num)
