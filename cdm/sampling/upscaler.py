"""Super-resolves images of any size with one stage, compiled once."""

import numpy as np

from cdm.distributed import device_mesh
from cdm.methods import lowres_conditioning
from cdm.ops import keys as ops_keys
from cdm.ops import pixels, resize
from cdm.sampling import cascade


class Upscaler:
  """A stage, compiled once, that super-resolves any number of tiles.

  Attributes:
    stage: `cascade.Stage` with a low-res input.
    tile: side of its input in pixels.
    factor: magnification.
    batch_size: tiles at once.
  """

  def __init__(self, stage, *, seed, batch_size):
    """seed: of the noise; tile n of a call depends on (seed, n) only."""
    self.stage = stage
    self.tile = stage.lowres.size
    self.factor = stage.image_size // self.tile
    self._seed = seed
    self.batch_size = batch_size
    self._run = stage.jit(self._super_resolve)
    self._shrink = stage.jit(self._shrunk)

  def _super_resolve(self, params, tiles, indices, label):
    keys = ops_keys.stage_keys(ops_keys.image_keys(self._seed, indices), 0)
    tiles, keys, label = self.stage.split((tiles, keys, label))
    x = cascade.super_resolve(
      self.stage,
      self.stage.whole(params),
      pixels.to_float(tiles),
      keys=keys,
      label=label,
    )
    return pixels.to_uint8(x)

  def _shrunk(self, originals):
    x_0 = pixels.to_float(self.stage.split(originals))
    return pixels.to_uint8(
      lowres_conditioning.downsample(x_0, self.stage.lowres)
    )

  def shrink(self, originals):
    """uint8 [N, H, W, 3] -> [N, h, w, 3], as in training."""
    filled = np.arange(self._filled(len(originals))) % len(originals)
    small = device_mesh.fetch(self._shrink(originals[filled]))
    return small[: len(originals)]

  def __call__(self, tiles, indices, label=None):
    """Super-resolves tiles.

    Args:
      tiles: uint8 [N, h, w, 3]; the same in every process, as the others.
      indices: int [N], the number of each tile in its run.
      label: int [N] or None.

    Returns:
      uint8 [N, H, W, 3].
    """
    made = []
    size = self._filled(min(self.batch_size, len(tiles)))
    for start in range(0, len(tiles), size):
      part = np.arange(start, min(start + size, len(tiles)))
      filled = np.resize(part, size)
      x = self._run(
        self.stage.params,
        tiles[filled],
        np.asarray(indices, np.uint32)[filled],
        None if label is None else np.asarray(label, np.int32)[filled],
      )
      made.append(device_mesh.fetch(x)[: len(part)])
    return np.concatenate(made)

  def _filled(self, count):
    """Up to a power of two, so that few shapes are compiled."""
    size = min(max(self.batch_size, count), 1 << (count - 1).bit_length())
    mesh = self.stage.mesh
    return size if mesh is None else device_mesh.padded(size, mesh)


def bicubic(image, upscaler):
  """-> uint8 [H, W, 3], the interpolation that super-resolution must beat."""
  x = resize.resize(
    pixels.to_float(image[None]), upscaler.stage.image_size, method='bicubic'
  )
  return np.asarray(pixels.to_uint8(x))[0]
