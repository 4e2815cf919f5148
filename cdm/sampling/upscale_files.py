"""Writes super-resolved images to disk, each beside what it was made from."""

import pathlib

import numpy as np

from cdm.data import transforms
from cdm.distributed import collectives
from cdm.ops import tiling
from cdm.ops.keys import image_pairs
from cdm.reporting import contact_sheet, image_files, progress, session_log
from cdm.sampling import output_folder
from cdm.sampling.upscaler import bicubic

FOLDERS = ('lowres', 'bicubic', 'upscaled', 'original')
SHOWN = 24  # images on the overview


def files_to(out, upscaler, paths, label, *, seed):
  """Super-resolves image files into `out`, one PNG each, and an overview.

  Args:
    out: folder; made if it is missing.
    upscaler: `Upscaler`.
    paths: image files, each at least as large as one tile.
    label: class of all of them, or None.
    seed: of the samples; the tiles of all files are numbered in turn.

  Raises:
    ValueError: a file that is not an image, or is too small.
  """
  out = pathlib.Path(out)
  named = {}
  for path in paths:
    target = out / f'{path.stem}.png'
    if target in named:
      raise ValueError(
        f'{named[target]} and {path} would both become {target}; rename one.'
      )
    if target.resolve() == path.resolve():
      raise ValueError(
        f'{path} would be overwritten by its own result; give another --out.'
      )
    named[target] = path
  for path in paths:  # What cannot be done is found before work begins.
    cut(path, upscaler)
  out.mkdir(parents=True, exist_ok=True)
  rows, first = [], 0
  with progress.Progress('upscaling', total=len(paths)) as bar:
    bar.say('upscaling: compiling ...')
    for target, path in named.items():
      image, tiles, places = cut(path, upscaler)
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
  for target in named:
    print(target)
  if rows and collectives.is_first():
    write_overview(out, rows[:SHOWN], ('low-res', 'bicubic', 'ours'))


def cut(path, upscaler):
  """-> (image, tiles, places) of an image file; errors name the file."""
  image = read(path)
  try:
    return image, *tiling.cut(image, upscaler.lowres_size)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def held_out_to(
  out, upscaler, read_images, *, count, seed, recipe, class_names=None
):
  """Shrinks held-out images, super-resolves them, keeps all four versions.

  Continues what is there: every picture is a file that appears when complete.

  Args:
    out: folder; made if it is missing.
    upscaler: `Upscaler`.
    read_images: what `datasets.read_held_out` returned.
    count: how many images.
    seed: of the samples.
    recipe: JSON-able dict of all that the pictures depend on.
    class_names: names for the overview, or None.

  Raises:
    ValueError: the folder holds pictures of another recipe.
  """
  out = pathlib.Path(out)
  output_folder.claim(out, recipe, name='upscaling.json')
  folders = {name: out / name for name in FOLDERS}
  for folder in folders.values():
    folder.mkdir(exist_ok=True)
  missing = output_folder.agreed_missing(folders.values(), count)
  done = count - len(missing)
  if done:
    print(f'Held-out images: {done} of {count} are already in {out}.')
  if missing:
    bar = progress.Progress('upscaling', total=count, initial=done)
    with session_log.Session(out, 'upscale'), bar:
      bar.say('upscaling: compiling ...')
      for start in range(0, len(missing), upscaler.batch_size):
        numbers = missing[start : start + upscaler.batch_size]
        originals, labels = read_images(numbers)
        keys = image_pairs(seed, numbers)
        versions = super_resolved(upscaler, originals, labels, keys)
        for name, stack in zip(FOLDERS, versions, strict=True):
          for i in collectives.local_indices(len(numbers)):
            file = folders[name] / output_folder.file_name(numbers[i])
            image_files.write_png(file, stack[i])
        bar.advance(len(numbers))
  collectives.barrier('upscaled')
  if collectives.is_first():
    overview_of(out, folders, read_images, count, class_names)


def super_resolved(upscaler, originals, labels, keys):
  """-> (low-res, bicubic, ours, originals), each uint8 [N, ...]."""
  low = upscaler.shrink(originals)
  made = upscaler(low, keys=keys, label=labels)
  return low, np.stack([bicubic(x, upscaler) for x in low]), made, originals


def overview_of(out, folders, read_images, count, class_names):
  """Writes upscaled.png from the folders: as many of one class as another."""
  looked_at = min(count, 10 * SHOWN)
  numbers = [i * count // looked_at for i in range(looked_at)]
  labels = read_images(numbers)[1]
  each = max(1, SHOWN // len(np.unique(labels)))
  chosen = []
  for label in np.unique(labels)[:SHOWN]:
    chosen += [n for n, x in zip(numbers, labels, strict=True) if x == label][
      :each
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
    label_of = dict(zip(numbers, labels, strict=True))
    names = [class_names[label_of[n]] for n in chosen]
  write_overview(out, rows, ('low-res', 'bicubic', 'ours', 'original'), names)


def write_overview(out, rows, heads, names=None):
  """Writes upscaled.png, two groups of columns side by side when it is long."""
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
  picture = contact_sheet.sheet(
    rows, names=names, heads=heads, scale=max(1, 96 // side)
  )
  image_files.write_png(out / 'upscaled.png', picture)
  print(f'{out / "upscaled.png"}: {", ".join(h for h in heads if h)}')


def magnified(image, like):
  """-> uint8 of the size of `like`, every pixel of `image` a square."""
  return contact_sheet.magnify(image, like.shape[0])


def read(path):
  """-> uint8 [h, w, 3] of an image file. Raises ValueError, naming it."""
  if not path.is_file():
    raise ValueError(f'{path}: there is no such file.')
  try:
    return transforms.decode(path.read_bytes(), name=str(path))
  except transforms.BadImage as error:
    raise ValueError(f'{error}') from None
