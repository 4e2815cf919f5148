"""Writes the samples of a cascade to disk, continuing what is there.

Every image is a file of its own that appears only when complete, so what
exists is done and what does not is drawn. OUT/sampling.json holds the recipe;
images of another recipe are never mixed in.
"""

import pathlib

import numpy as np

from cdm.data import npz_images
from cdm.data.class_names import write as write_class_names
from cdm.distributed import collectives, device_mesh
from cdm.reporting import (
  contact_sheet,
  image_files,
  progress,
  session_log,
)
from cdm.sampling import cascade, output_folder

ROW = 4  # images per class on the overview


def draw_to(out, stages, *, recipe, num, batch_size, class_names=None):
  """Draws images 0 to num - 1 of a recipe into a folder.

  Args:
    out: folder; made if it is missing, continued if it holds this recipe.
    stages: list of `cascade.Stage`.
    recipe: JSON-able dict with `seed`, `labels` (the cycle of labels, or
      None) and whatever else identifies the images.
    num: how many images.
    batch_size: how many are drawn at once.
    class_names: names for the overview, or None.

  Raises:
    ValueError: the folder holds images of another recipe.
  """
  out = pathlib.Path(out)
  output_folder.claim(out, recipe, name='sampling.json')
  labels = label_cycle(recipe['labels'], num)
  folders = [out / stage.name for stage in stages]
  for folder in folders:
    folder.mkdir(exist_ok=True)
  missing = output_folder.agreed_missing(folders, num)
  done = num - len(missing)
  if done:
    print(f'Samples: {done} of {num} are already in {out}.')
  if missing:
    with session_log.Session(out, 'sample'):
      draw_missing(
        folders, stages, recipe['seed'], labels, missing, num, batch_size
      )
  collectives.barrier('samples')
  if collectives.is_first() and (missing or not assembled(out, num)):
    assemble(out, stages, labels, num, class_names)


def draw_missing(folders, stages, seed, labels, missing, num, batch_size):
  """Draws the images `missing` and writes each into its stages' folders.

  Of several processes, each writes the images that its own devices drew.
  """
  draw = cascade.sampler(stages)
  # Of `num`, not of what is missing: another shape is another program, which
  # may round otherwise, and a run that continues must give the same bytes.
  batch_size = min(batch_size, num)
  if stages[0].mesh is not None:
    batch_size = device_mesh.padded(batch_size, stages[0].mesh)
  done = num - len(missing)
  with progress.Progress('sampling', total=num, initial=done) as bar:
    bar.say('sampling: compiling ...')
    for start in range(0, len(missing), batch_size):
      indices = missing[start : start + batch_size]
      # The last batch is filled up, so that one shape is compiled.
      filled = np.resize(indices, batch_size)
      drawn = draw(seed, filled, None if labels is None else labels[filled])
      for folder, images in zip(folders, drawn, strict=True):
        for row, image in device_mesh.local_images(images):
          if row < len(indices):
            name = output_folder.file_name(indices[row])
            image_files.write_png(folder / name, image)
      bar.advance(len(indices))


def assembled(out, num):
  """Whether the overview is there, and an archive of as many images.

  Reading a million pictures again would take longer than drawing a few.
  """
  try:
    held = npz_images.count(out / 'samples.npz')
  except ValueError:
    return False
  return held == num and (out / 'samples.png').exists()


def assemble(out, stages, labels, num, class_names):
  """Writes samples.npz, the names of its classes, and samples.png."""
  size = stages[-1].image_size
  if labels is not None and class_names:
    write_class_names(out, class_names)
  image_files.write_png(
    out / 'samples.png', overview(out, stages, labels, num, class_names)
  )
  # Last: once it is there, so is all else.
  image_files.write_npz(
    out / 'samples.npz',
    (
      image_files.read_png(out / stages[-1].name / output_folder.file_name(n))
      for n in range(num)
    ),
    shape=(num, size, size, 3),
    labels=labels,
  )
  print(f'{num} images of {size}x{size} pixels in {out}:')
  print(f'  {out / "samples.png"}  {out / "samples.npz"}')


def overview(out, stages, labels, num, class_names):
  """-> uint8 picture: a row per class, each image beside its earlier stages.

  At most 16 classes and `ROW` images of each; without labels, 8 rows.
  """
  shown = sorted(set(labels[:num].tolist())) if labels is not None else [None]
  rows, names = [], []
  for label in shown[:16]:
    if label is None:
      chosen = list(range(min(num, ROW * 8)))
    else:
      chosen = [n for n in range(num) if labels[n] == label][:ROW]
    for start in range(0, len(chosen), ROW):
      row = []
      for n in chosen[start : start + ROW]:
        row += [None] if row else []
        for stage in stages:
          image = image_files.read_png(
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


def label_cycle(labels, num):
  """-> int32 [num], the cycle of labels repeated, or None."""
  if labels is None:
    return None
  return np.resize(np.asarray(labels, np.int32), num)
