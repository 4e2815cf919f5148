"""RAISR on images: fitted, applied, blended."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

from cdm.methods import raisr, raisr_filters
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import pair_scores, pixels, resize, tiling

FACTOR, SIDE = 2, 48


@functools.cache
def small(**options):
  return raisr.Raisr(
    raisr.RaisrOptions(
      patch=7, window=5, angles=8, strength_edges=(0.03,), **options
    ),
    SIDE,
    Lowres(size=SIDE // FACTOR, upsample='bilinear'),
  )


def crops(image, number, seed=0):
  """-> uint8 [N, SIDE, SIDE, 3] of a photograph."""
  rng = np.random.default_rng(seed)
  places = rng.integers(0, np.array(image.shape[:2]) - SIDE + 1, (number, 2))
  return np.stack([image[y : y + SIDE, x : x + SIDE] for y, x in places])


@functools.cache
def fitted(**options):
  """-> filters that were fitted to 96 crops of one photograph."""
  made = small(**options)
  accumulate = jax.jit(made.accumulate)
  params = made.init(jax.random.key(0))
  for image in crops(data.astronaut(), 96).reshape(3, 32, SIDE, SIDE, 3):
    params, _ = accumulate(params, {'image': image})
  return jax.jit(made.prepare)(params)


@functools.cache
def compiled_sample(**options):
  return jax.jit(
    lambda params, lowres: small(**options).sample(params, lowres=lowres)
  )


def shrunk(images):
  return pixels.to_float(
    resize.resize_uint8(images, images.shape[1] // FACTOR, method='bicubic')
  )


def held_out(side=240):
  return data.chelsea()[None, 30 : 30 + side, 100 : 100 + side]


def test_another_photograph_comes_out_better_than_by_bicubic():
  original = held_out()
  low = shrunk(original)
  bicubic = resize.resize(low, original.shape[1], method='bicubic')
  ours = compiled_sample()(fitted(), low)
  scores = [
    pair_scores.psnr(np.asarray(pixels.to_uint8(x)), original)[0]
    for x in (bicubic, ours)
  ]
  assert scores[1] > scores[0] + 0.3


def test_the_order_of_the_batches_changes_no_filter():
  made, images = (
    small(),
    crops(data.astronaut(), 32).reshape(2, 16, SIDE, SIDE, 3),
  )
  accumulate, prepare = jax.jit(made.accumulate), jax.jit(made.prepare)
  found = []
  for order in ((0, 1), (1, 0)):
    params = made.init(jax.random.key(0))
    for i in order:
      params, _ = accumulate(params, {'image': images[i]})
    found.append(prepare(params)['filters'])
  np.testing.assert_allclose(found[0], found[1], atol=1e-5)
  assert np.abs(found[0]).max() > 0.1


def test_tiles_with_the_margin_are_the_whole_picture():
  low = np.asarray(pixels.to_uint8(shrunk(held_out(120))))[0]  # 60 px
  sample = compiled_sample()
  whole = pixels.to_uint8(sample(fitted(), pixels.to_float(low[None])))[0]
  tile, margin = 32, small().margin
  tiles, places = tiling.cut(low, tile, overlap=2 * margin)
  made = pixels.to_uint8(sample(fitted(), pixels.to_float(tiles)))
  for image, (top, left) in zip(np.asarray(made), places, strict=True):
    inner = []
    for start in (top, left):
      first = 0 if start == 0 else margin
      last = tile if start + tile == len(low) else tile - margin
      inner.append((first, last))
    (y0, y1), (x0, x1) = inner
    part = np.s_[FACTOR * y0 : FACTOR * y1, FACTOR * x0 : FACTOR * x1]
    there = np.asarray(whole)[
      FACTOR * (top + y0) : FACTOR * (top + y1),
      FACTOR * (left + x0) : FACTOR * (left + x1),
    ]
    np.testing.assert_array_equal(image[part], there)


def test_colour_is_that_of_bicubic_and_only_the_luma_is_filtered():
  low = shrunk(held_out(96))
  bicubic = np.asarray(resize.resize(low, 96, method='bicubic'))
  change = np.asarray(compiled_sample()(fitted(), low)) - bicubic
  inside = np.abs(bicubic + change).max(axis=-1) < 1  # nothing was clipped
  np.testing.assert_allclose(
    change[inside][:, 0], change[inside][:, 2], atol=1e-5
  )
  assert np.abs(change).max() > 0.05


@pytest.mark.parametrize('blending', ['randomness', 'structure'])
def test_blending_moves_pixels_towards_the_enlarged_image(blending):
  low = shrunk(held_out(96))
  enlarged = resize.resize(low, 96, method='bilinear')
  luma = np.asarray(raisr.luma(enlarged))

  def change(**options):
    x = compiled_sample(**options)(fitted(), low)
    return np.asarray(raisr.luma(x)) - luma

  plain, blended = change(), change(blending=blending)
  inner = np.abs(plain + luma) < 0.9  # nothing was clipped
  assert (np.abs(blended) <= np.abs(plain) + 1e-3)[inner].mean() > 0.99
  assert 0.1 < np.mean(blended**2) / np.mean(plain**2) < 0.98


def test_sharpened_originals_give_sharper_images():
  low = shrunk(held_out(96))
  spread = [
    float(jnp.std(compiled_sample()(fitted(**options), low)))
    for options in ({}, dict(sharpen=1.0))
  ]
  assert spread[1] > 1.01 * spread[0]


@pytest.mark.parametrize(
  ('given', 'sentence'),
  [
    (dict(blending='half'), "method.blending is 'half'; known are"),
    (dict(ridge=0.0), 'method.ridge is 0.0; it must be above 0'),
    (dict(sharpen=-1.0), 'method.sharpen is -1.0'),
    (dict(patch=6), 'method.patch is 6; it must be odd'),
  ],
)
def test_impossible_options_are_refused_by_their_key(given, sentence):
  with pytest.raises(ValueError, match=sentence):
    raisr.RaisrOptions(**given)


def test_noised_low_res_images_are_refused():
  with pytest.raises(ValueError, match="lowres.augment is 'noise'"):
    raisr.Raisr(raisr.RaisrOptions(), 64, Lowres(size=8, augment='noise'))


def test_the_loss_is_the_error_of_the_filters_on_the_patches_so_far():
  made, images = small(), crops(data.astronaut(), 8)
  empty = made.init(jax.random.key(0))
  sums, scalars = jax.jit(made.accumulate)(empty, {'image': images})
  filters = jax.jit(made.prepare)(sums)['filters']
  low = shrunk(images)
  y = (raisr.luma(resize.resize(low, SIDE, method='bilinear')) + 1) / 2
  filtered = raisr_filters.apply(y, filters, made.hash)
  target = (raisr.luma(pixels.to_float(images)) + 1) / 2
  inner = np.s_[:, 5:-5, 5:-5]
  for name, image in (('loss', filtered), ('loss_unfiltered', y)):
    expected = float(jnp.mean((image - target)[inner] ** 2))
    np.testing.assert_allclose(scalars[name], expected, rtol=1e-3)
  assert scalars['loss'] < 0.8 * scalars['loss_unfiltered']


def test_images_smaller_than_a_patch_are_refused():
  with pytest.raises(ValueError, match='RAISR needs 15 around a patch'):
    raisr.Raisr(raisr.RaisrOptions(), 14, Lowres(size=7))
