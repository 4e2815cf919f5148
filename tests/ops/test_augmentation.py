"""Random crops against Pillow, and against the law they are drawn by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cdm.ops import augmentation, resize

RATIO = (3 / 4, 4 / 3)


def pictures(n, height, width):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (n, height, width, 3)).astype(np.uint8)


def boxes(n, height, width, **law):
  keys = jax.random.split(jax.random.key(3), n)
  draw = jax.jit(
    jax.vmap(lambda k: augmentation.random_box(k, height, width, **law))
  )
  return np.asarray(draw(keys))


def test_a_crop_is_what_pillow_cuts_out_and_resizes():
  """To one grey level: Pillow rounds after each of its two passes."""
  x = pictures(5, 40, 48)
  places = [(3, 5, 20, 31), (0, 0, 40, 48), (39, 47, 1, 1), (7, 0, 9, 9)]
  places.append((20, 30, 20, 18))
  found = resize.crop_and_resize(
    jnp.asarray(x, jnp.float32), jnp.asarray(places), 16
  )
  for image, (top, left, h, w), mine in zip(x, places, found, strict=True):
    part = Image.fromarray(image[top : top + h, left : left + w])
    theirs = part.resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(mine, np.asarray(theirs), atol=1.01)


def test_a_box_has_the_area_the_aspect_and_the_place_of_the_law():
  """Up to 0.3 of the area every try fits, so that moments are known."""
  top, left, h, w = boxes(20_000, 400, 400, scale=(0.1, 0.3), ratio=RATIO).T
  area = h * w / 400**2
  aspect = np.log(w / h)
  assert 0.098 < area.min() < 0.102 and 0.298 < area.max() < 0.302
  assert area.mean() == pytest.approx(0.2, abs=0.002)
  assert area.var() == pytest.approx(0.2**2 / 12, rel=0.03)
  assert aspect.mean() == pytest.approx(0.0, abs=0.006)
  assert aspect.var() == pytest.approx((2 * np.log(4 / 3)) ** 2 / 12, rel=0.03)
  for start, room in ((top, 400 - h), (left, 400 - w)):
    assert start.min() >= 0 and (start <= room).all()
    assert (start / room).mean() == pytest.approx(0.5, abs=0.01)
  assert abs(np.corrcoef(top, left)[0, 1]) < 0.03


def test_a_box_never_leaves_a_small_image():
  top, left, h, w = boxes(5000, 8, 7, scale=(0.08, 1.0), ratio=RATIO).T
  assert h.min() >= 1 and w.min() >= 1
  assert (top >= 0).all() and (top + h).max() == 8
  assert (left >= 0).all() and (left + w).max() == 7


def test_where_nothing_fits_it_is_the_largest_box_in_the_middle():
  wide = boxes(3, 10, 100, scale=(1.0, 1.0), ratio=RATIO)
  np.testing.assert_array_equal(wide, [[0, 43, 10, 13]] * 3)
  tall = boxes(1, 100, 10, scale=(1.0, 1.0), ratio=RATIO)
  np.testing.assert_array_equal(tall, [[43, 0, 13, 10]])


def augmented(x, examples, *, flip=True):
  return augmentation.random_crop_and_flip(
    jnp.asarray(x, jnp.float32),
    key=jax.random.key(0),
    examples=jnp.asarray(examples),
    size=8,
    scale=(0.3, 1.0),
    ratio=RATIO,
    flip=flip,
  )


def test_what_is_drawn_belongs_to_the_example_wherever_it_is():
  x = pictures(1, 12, 12)
  whole = augmented(np.repeat(x, 6, axis=0), np.arange(6))
  part = augmented(np.repeat(x, 2, axis=0), [4, 1])
  np.testing.assert_array_equal(part, whole[np.array([4, 1])])
  different = np.abs(whole[1:] - whole[:-1]).max(axis=(1, 2, 3))
  assert (np.asarray(different) > 1.0).all()


def test_every_second_image_is_mirrored():
  x = np.repeat(pictures(1, 12, 12), 400, axis=0)
  turned = augmented(x, np.arange(400))
  straight = augmented(x, np.arange(400), flip=False)
  same = np.abs(turned - straight).max(axis=(1, 2, 3)) == 0
  mirrored = np.abs(turned - straight[:, :, ::-1]).max(axis=(1, 2, 3)) == 0
  assert (same | mirrored).all()
  assert 0.4 < mirrored.mean() < 0.6


def test_the_middle_is_the_middle():
  x = np.arange(5 * 6).reshape(5, 6, 1)
  np.testing.assert_array_equal(resize.center_crop(x, 3), x[1:4, 1:4])
  with pytest.raises(
    ValueError, match='6x5 pixels are too small for a central crop of 6x6'
  ):
    resize.center_crop(x, 6)
