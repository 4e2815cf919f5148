"""Enlarges low-res images that may be degraded, and says what degraded them."""

import jax
import jax.numpy as jnp

from cdm.methods import lowres_conditioning
from cdm.ops import pixels, resize


def of_batch(
  batch: dict[str, jax.Array],
  x_0: jax.Array,
  lowres: lowres_conditioning.Lowres,
  num_levels: int,
) -> tuple[jax.Array, jax.Array]:
  """Returns the low-res images of a batch as a network takes them.

  Args:
    batch: see `Method.loss`. 'lowres' uint8 [B, H, W, 3] holds low-res images
      of 'lowres_size' int32 [B] pixels in its top left corner, 'levels'
      float32 [B, K] tells what degraded them. Without these the low-res images
      are clean, and as `lowres` says.
    x_0: [B, H, W, 3], its images.
    lowres: how a low-res image is made where the batch has none.
    num_levels: K.

  Returns:
    (enlarged [B, H, W, 3], levels [B, K]).
  """
  size = x_0.shape[1]
  if 'lowres' not in batch:
    z_0 = lowres_conditioning.downsample(x_0, lowres)
    return of_clean(z_0, size, lowres, num_levels)
  enlarged = resize.enlarge_corner(
    pixels.to_float(batch['lowres']), batch['lowres_size'], size
  )
  return enlarged, batch['levels']


def of_clean(
  z: jax.Array,
  image_size: int,
  lowres: lowres_conditioning.Lowres,
  num_levels: int,
) -> tuple[jax.Array, jax.Array]:
  """Returns clean low-res images z [B, h, w, 3] as `of_batch` does.

  Args:
    z: the low-res images.
    image_size: H.
    lowres, num_levels: see `of_batch`.
  """
  enlarged = lowres_conditioning.upsample(z, image_size, lowres)
  factor = image_size / z.shape[1]
  return enlarged, clean_levels(z.shape[0], factor, num_levels)


def clean_levels(count: int, factor: float, num_levels: int) -> jax.Array:
  """Returns float32 [B, K], the levels of clean images.

  The first is log2 of the factor of enlarging; all others are 0.

  Args:
    count: B.
    factor: how far the low-res images are enlarged.
    num_levels: K.
  """
  return jnp.zeros((count, num_levels)).at[:, 0].set(jnp.log2(factor))


def check(lowres: lowres_conditioning.Lowres | None, kind: str) -> None:
  """Raises ValueError unless a method of degraded inputs can use a section.

  Args:
    lowres: the section `lowres`, None without one.
    kind: of the method.
  """
  if lowres is None:
    raise ValueError(
      f'lowres is None, but method.kind={kind!r} predicts an image from its '
      'low-res image; define the section lowres.'
    )
  if lowres.augment != 'none' or lowres.upsample != 'bicubic':
    raise ValueError(
      f'lowres.augment is {lowres.augment!r} and lowres.upsample '
      f"{lowres.upsample!r}; this network takes 'none' and 'bicubic'. Its data "
      'degrade low-res images, see train_data.kind=photo_crops.'
    )
