"""Draws the samples of a cascade into an output folder.

Every image is a file of its own that appears only when it is complete, so a
restart draws exactly the images that are missing. OUT/sampling.json, the
manifest, holds every setting that the images depend on; images drawn with other
settings are never mixed in.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from cdm.data import image_decoder, npz_images
from cdm.data.class_names import write as write_class_names
from cdm.distributed import collectives, device_mesh
from cdm.reporting import (
  atomic_files,
  contact_sheet,
  image_files,
  progress,
  session_log,
)
from cdm.sampling import cascade, output_folder, restore

ROW = 4  # images per class on the overview
# What is written beside one folder of images per stage.
FILES = ('samples.png', 'samples.npz', 'classes.json')


class Manifest(TypedDict):
  """The settings that samples depend on, the content of sampling.json.

  Attributes:
    config: name of the config of the cascade, or of the single stage.
    seed: seed of all images.
    labels: the labels to draw in rotation; None if no stage takes a label.
    stages: the stages of the cascade, the base model first.
  """

  config: str
  seed: int
  labels: list[int] | None
  stages: list[restore.CascadeEntry]


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
) -> None:
  """Draws images 0 to num - 1 into a folder, with an overview and an archive.

  Args:
    out: folder; made if it is missing, continued if its manifest is `manifest`.
    stages: the stages of the cascade, the base model first.
    manifest: manifest of the folder.
    num: number of images.
    batch_size: number of images that are drawn at once.
    class_names: names of the classes for the overview, or None.
    overwrite: whether what other settings wrote into the folder is removed.

  Raises:
    ValueError: the folder has another manifest, or other files of the names
      that are written, or another run draws into it.
  """
  out = pathlib.Path(out)
  output_folder.make_room(
    out,
    manifest,
    name='sampling.json',
    writes=(*(stage.name for stage in stages), *FILES),
    overwrite=overwrite,
  )
  output_folder.claim(out, manifest, name='sampling.json')
  labels = label_cycle(manifest['labels'], num)
  folders = [out / stage.name for stage in stages]
  for folder in folders:
    folder.mkdir(exist_ok=True)
    atomic_files.remove_abandoned(folder)
  missing = output_folder.broadcast_missing_images(folders, num)
  done = num - len(missing)
  if done:
    print(f'Samples: {done} of {num} are already in {out}.')
  if missing:
    with session_log.Session(out, 'sample'):
      draw_missing(
        folders, stages, manifest['seed'], labels, missing, num, batch_size
      )
  collectives.barrier('samples')
  if collectives.is_first() and (missing or not is_assembled(out, num)):
    assemble(out, stages, labels, num, class_names)


def draw_missing(
  folders: Sequence[pathlib.Path],
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
    folders: the folder of every stage.
    stages: the stages of the cascade.
    seed: seed of all images.
    labels: int32 [num], or None.
    missing: indices of the images to draw.
    num: number of images of the whole run.
    batch_size: number of images that are drawn at once.
  """
  draw = cascade.sampler(stages)
  # The batch size follows from `num`, not from the number of missing images:
  # another shape gives another program, which may round differently, and a
  # continued run must write the same bytes.
  batch_size = min(batch_size, num)
  if stages[0].mesh is not None:
    batch_size = device_mesh.padded_batch_size(batch_size, stages[0].mesh)
  done = num - len(missing)
  with progress.Progress('sampling', total=num, initial=done) as bar:
    bar.compiling()
    for start in range(0, len(missing), batch_size):
      indices = missing[start : start + batch_size]
      # The last batch is filled up, so that only one shape is compiled.
      filled = np.resize(indices, batch_size)
      drawn = draw(seed, filled, None if labels is None else labels[filled])
      for folder, images in zip(folders, drawn, strict=True):
        for row, image in device_mesh.local_images(images):
          if row < len(indices):
            name = output_folder.file_name(indices[row])
            image_files.write_png(folder / name, image)
      bar.advance(len(indices))


def is_assembled(out: pathlib.Path, num: int) -> bool:
  """Returns whether samples.png exists and samples.npz holds `num` images.

  If so, `assemble` need not read all images again; reading a million images
  takes longer than drawing a few.
  """
  try:
    count = npz_images.count(out / 'samples.npz')
  except (FileNotFoundError, ValueError):
    return False
  return count == num and (out / 'samples.png').exists()


def assemble(
  out: pathlib.Path,
  stages: Sequence[cascade.Stage],
  labels: np.ndarray | None,
  num: int,
  class_names: Sequence[str] | None,
) -> None:
  """Writes samples.npz, the names of its classes, and samples.png."""
  size = stages[-1].image_size
  if labels is not None and class_names:
    write_class_names(out, class_names)
  image_files.write_png(
    out / 'samples.png', overview(out, stages, labels, num, class_names)
  )
  # The archive is written last, so that the other files exist when it does.
  last = out / stages[-1].name
  image_files.write_npz(
    out / 'samples.npz',
    (
      image_decoder.read_pixels(last / output_folder.file_name(n))
      for n in range(num)
    ),
    shape=(num, size, size, 3),
    labels=labels,
  )
  print(f'{num} images of {size}x{size} pixels in {out}:')
  print(f'  {out / "samples.png"}  {out / "samples.npz"}')


def overview(
  out: pathlib.Path,
  stages: Sequence[cascade.Stage],
  labels: np.ndarray | None,
  num: int,
  class_names: Sequence[str] | None,
) -> np.ndarray:
  """Returns a contact sheet with a row per class, uint8 [height, width, 3].

  Every image is shown beside the images of its earlier stages. The sheet has at
  most 16 classes and `ROW` images of each; without labels, at most 8 rows.
  """
  shown = sorted(set(labels[:num].tolist())) if labels is not None else [None]
  rows, names = [], []
  for label in shown[:16]:
    if labels is None:
      chosen = list(range(min(num, ROW * 8)))
    else:
      chosen = [n for n in range(num) if labels[n] == label][:ROW]
    for start in range(0, len(chosen), ROW):
      row = []
      for n in chosen[start : start + ROW]:
        row += [None] if row else []
        for stage in stages:
          image = image_decoder.read_pixels(
            out / stage.name / output_folder.file_name(n)
          )
          row.append(contact_sheet.magnify(image, stages[-1].image_size))
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
