"""Super-resolves images of any size by one callable, whatever the method is.

  upscale(lowres uint8 [N, h, w, 3], keys=uint32 [N, 2], label=int [N] or None)
    -> uint8 [N, H, W, 3]

Image n depends on its low-res image, its label and its pair of `keys`, which
is (seed, n), and on nothing else. A method has no more to give than
`Upscaler.upscale_batch`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from cdm.distributed import device_mesh
from cdm.methods import lowres_conditioning
from cdm.ops import keys as ops_keys
from cdm.ops import pixels, resize
from cdm.sampling import cascade


@dataclasses.dataclass(frozen=True)
class Upscaler:
  """A method that super-resolves any number of images, a batch at a time.

  Attributes:
    upscale_batch: (uint8 [B, h, w, 3], keys uint32 [B, 2], label int32 [B] or
      None) -> jax.Array uint8 [B, H, W, 3], compiled once for each B.
    image_size: H = W of its output.
    lowres: how its low-res images are made of originals.
    record: `restore.StageRecord`, for manifests.
    num_classes: classes of its label input, None if it takes no label.
    null_class: True if it also takes images without a label.
    mesh: the mesh its images are shared out over; None is one device.
    batch_size: images at once.
  """

  upscale_batch: Callable
  image_size: int
  lowres: lowres_conditioning.Lowres
  record: object
  num_classes: int | None = None
  null_class: bool = False
  mesh: jax.sharding.Mesh | None = None
  batch_size: int = 32

  @property
  def lowres_size(self):
    """h = w of its input."""
    return self.lowres.size

  @property
  def factor(self):
    """Its magnification."""
    return self.image_size // self.lowres_size

  def __call__(self, lowres, *, keys, label=None):
    """Super-resolves low-res images.

    Args:
      lowres: uint8 [N, h, w, 3]; the same in every process, as the others.
      keys: uint32 [N, 2], see `ops.keys.image_pairs`.
      label: int [N] or None; not looked at by a method that takes none.

    Returns:
      uint8 [N, H, W, 3].
    """
    if self.num_classes is None:
      label = None
    made = []
    size = self._filled(min(self.batch_size, len(lowres)))
    for start in range(0, len(lowres), size):
      part = np.arange(start, min(start + size, len(lowres)))
      filled = np.resize(part, size)
      x = self.upscale_batch(
        lowres[filled],
        keys[filled],
        None if label is None else np.asarray(label, np.int32)[filled],
      )
      made.append(device_mesh.fetch(x)[: len(part)])
    return np.concatenate(made)

  def shrink(self, originals):
    """uint8 [N, H, W, 3] -> [N, h, w, 3], as in training."""
    filled = np.arange(self._filled(len(originals))) % len(originals)
    small = device_mesh.fetch(self._shrink_batch(originals[filled]))
    return small[: len(originals)]

  @functools.cached_property
  def _shrink_batch(self):
    def shrunk(originals):
      x_0 = pixels.to_float(device_mesh.split_batch(originals, self.mesh))
      return pixels.to_uint8(lowres_conditioning.downsample(x_0, self.lowres))

    return cascade.jit_batches(shrunk, self.mesh)

  def _filled(self, count):
    """Up to a power of two, so that few shapes are compiled."""
    size = min(max(self.batch_size, count), 1 << (count - 1).bit_length())
    return size if self.mesh is None else device_mesh.padded(size, self.mesh)


def stage_upscaler(stage, record, *, batch_size):
  """Makes an `Upscaler` that draws with a diffusion stage.

  Args:
    stage: `cascade.Stage` with a low-res input.
    record, batch_size: see `Upscaler`.
  """

  @stage.jit
  def draw(params, lowres, keys, label):
    keys = ops_keys.stage_keys(ops_keys.keys_of_pairs(keys), 0)
    lowres, keys, label = stage.split((lowres, keys, label))
    x = cascade.super_resolve(
      stage,
      stage.whole(params),
      pixels.to_float(lowres),
      keys=keys,
      label=label,
    )
    return pixels.to_uint8(x)

  return Upscaler(
    upscale_batch=functools.partial(draw, stage.params),
    image_size=stage.image_size,
    lowres=stage.lowres,
    record=record,
    num_classes=stage.num_classes,
    null_class=stage.null_class,
    mesh=stage.mesh,
    batch_size=batch_size,
  )


def bicubic(image, upscaler):
  """-> uint8 [H, W, 3], the interpolation that super-resolution must beat."""
  x = resize.resize(
    pixels.to_float(image[None]), upscaler.image_size, method='bicubic'
  )
  return np.asarray(pixels.to_uint8(x))[0]
