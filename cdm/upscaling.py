"""Writes super-resolved images to disk, each beside what it was made from."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from cdm import (
  cascade,
  conditioning,
  images,
  pictures,
  progress,
  sessions,
  upscale,
)

FOLDERS = ('lowres', 'bicubic', 'upscaled', 'original')
SHOWN = 24  # images on the overview


class Upscaler:
  """A stage, compiled once, that super-resolves any number of tiles.

  Attributes:
    stage: `cascade.Stage` with a low-res input.
    tile: side of its input in pixels.
    factor: magnification.
  """

  def __init__(self, stage, *, seed, batch_size):
    """seed: of the noise; tile n of a call depends on (seed, n) only."""
    self.stage = stage
    self.tile = stage.lowres.size
    self.factor = stage.image_size // self.tile
    self._seed = seed
    self._batch_size = batch_size
    self._run = jax.jit(self._super_resolve)

  def _super_resolve(self, params, tiles, keys, label):
    x = cascade.super_resolve(
      self.stage, params, images.to_float(tiles), keys=keys, label=label
    )
    return images.to_uint8(x)

  def __call__(self, tiles, label=None):
    """tiles: uint8 [N, h, w, 3], label: int [N] or None -> uint8 [N, H, W, 3]

    Shows its progress.
    """
    n = len(tiles)
    size = min(self._batch_size, n)
    made = []
    with progress.Progress('upscaling', total=n, unit='tile') as bar:
      for start in range(0, n, size):
        indices = np.arange(start, min(start + size, n))
        filled = np.resize(indices, size)
        x = self._run(
          self.stage.params,
          tiles[filled],
          cascade.stage_keys(cascade.image_keys(self._seed, filled), 0),
          None if label is None else jnp.asarray(label)[filled],
        )
        made.append(np.asarray(x)[: len(indices)])
        bar.advance(len(indices))
    return np.concatenate(made)


def files_to(out, upscaler, paths, label):
  """Super-resolves image files into `out`, one PNG each, and an overview.

  Args:
    out: folder; made if it is missing.
    upscaler: `Upscaler`.
    paths: image files, each at least as large as one tile.
    label: class of all of them, or None.

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
  cuts = []
  for path in paths:
    image = read(path)
    try:
      cuts.append((image, *upscale.cut(image, upscaler.tile)))
    except ValueError as error:
      raise ValueError(f'{path}: {error}') from None
  tiles = np.concatenate([tiles for _, tiles, _ in cuts])
  labels = None if label is None else np.full(len(tiles), label, np.int32)
  made = upscaler(tiles, labels)
  out.mkdir(parents=True, exist_ok=True)
  rows, start = [], 0
  for target, (image, tiles, places) in zip(named, cuts, strict=True):
    x = upscale.blend(
      made[start : start + len(tiles)],
      places,
      shape=image.shape[:2],
      factor=upscaler.factor,
    )
    start += len(tiles)
    pictures.write_png(target, x)
    print(f'{target}  {x.shape[1]}x{x.shape[0]} pixels')
    if image.shape[:2] == (upscaler.tile, upscaler.tile):
      rows.append([magnified(image, x), bicubic(image, upscaler), x])
  if rows:
    heads = ('low-res', 'bicubic', 'ours')
    write_overview(out, rows[:SHOWN], heads)


def held_out_to(out, upscaler, originals, labels, class_names=None):
  """Shrinks held-out images, super-resolves them, keeps all four versions.

  Args:
    out: folder; made if it is missing.
    upscaler: `Upscaler`.
    originals: uint8 [N, H, W, 3].
    labels: int [N].
    class_names: names for the overview, or None.
  """
  out = pathlib.Path(out)
  lowres = upscaler.stage.lowres
  shrink = jax.jit(
    lambda x: images.to_uint8(
      conditioning.downsample(images.to_float(x), lowres)
    )
  )
  low = np.asarray(shrink(originals))
  given = labels if upscaler.stage.num_classes is not None else None
  out.mkdir(parents=True, exist_ok=True)
  with sessions.Session(out, 'upscale'):
    made = upscaler(low, given)
  smooth = np.stack([bicubic(image, upscaler) for image in low])
  for name, stack in zip(FOLDERS, (low, smooth, made, originals), strict=True):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob('*.png'):
      stale.unlink()
    for n, image in enumerate(stack):
      pictures.write_png(folder / f'{n:06d}.png', image)
  shown = np.unique(np.linspace(0, len(low) - 1, SHOWN).round().astype(int))
  rows = [
    [magnified(low[n], made[n]), smooth[n], made[n], originals[n]]
    for n in shown
  ]
  names = None
  if class_names:
    names = [class_names[labels[n]] for n in shown]
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
  picture = pictures.sheet(
    rows, names=names, heads=heads, scale=max(1, 96 // side)
  )
  pictures.write_png(out / 'upscaled.png', picture)
  print(f'{out / "upscaled.png"}: {", ".join(h for h in heads if h)}')


def bicubic(image, upscaler):
  """-> uint8 [H, W, 3], the interpolation that super-resolution must beat."""
  x = images.resize(
    images.to_float(image[None]), upscaler.stage.image_size, method='bicubic'
  )
  return np.asarray(images.to_uint8(x))[0]


def magnified(image, like):
  """-> uint8 of the size of `like`, every pixel of `image` a square."""
  return pictures.magnify(image, like.shape[0])


def read(path):
  """-> uint8 [h, w, 3] of an image file. Raises ValueError, naming it."""
  if not path.is_file():
    raise ValueError(f'{path}: there is no such file.')
  try:
    return pictures.read_png(path)
  except OSError as error:
    raise ValueError(f'{path} is not an image we can read: {error}') from None
