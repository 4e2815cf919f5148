import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support.oracles import assert_matches, oracle

from cdm.data import transforms
from cdm.ops import blur as ops_blur
from cdm.ops import pixels, resize

SIZES = {'256to64': 64, '64to16': 16, '16to128': 128, 'odd_to_64': 64}
INPUTS = {
  '256to64': 'big256',
  '64to16': 'm64',
  '16to128': 'm16',
  'odd_to_64': 'odd',
}
# Peer's name -> (ours, antialias). Left out: torch's bicubic without
# antialiasing (a = -0.75), torch's nearest when shrinking (corner of the
# block, ours is its centre), torch's area and Pillow's box at fractional
# factors (whole pixels, ours covers fractions as TensorFlow does).
FLOAT_PEERS = {
  'pil_float/bicubic': ('bicubic', True),
  'pil_float/bilinear': ('bilinear', True),
  'pil_float/lanczos': ('lanczos3', True),
  'torch/bicubic_aa': ('bicubic', True),
  'torch/bilinear_aa': ('bilinear', True),
  'torch/bilinear': ('bilinear', False),
  'tf/bicubic_aa': ('bicubic', True),
  'tf/bicubic': ('bicubic', False),
  'tf/bilinear_aa': ('bilinear', True),
  'tf/lanczos3_aa': ('lanczos3', True),
  'tf/area': ('area', True),
}
PILLOW = {
  'bicubic': Image.Resampling.BICUBIC,
  'bilinear': Image.Resampling.BILINEAR,
  'lanczos3': Image.Resampling.LANCZOS,
}


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize('case', SIZES)
def test_float_resizing_equals_pillow_torch_and_tensorflow(case):
  description, stored = oracle('resize')
  x = stored[f'in/{INPUTS[case]}'].astype(np.float32)
  compared = 0
  for peer, (method, antialias) in FLOAT_PEERS.items():
    program, name = peer.split('/')
    key = f'{program}/{case}/{name}'
    if key not in stored:
      continue
    mine = resize.resize(x, SIZES[case], method=method, antialias=antialias)
    if mine.shape != stored[key].shape:
      mine = mine[::4, ::4]  # the stored array is every 4th row and column
    assert_matches(mine, stored[key], description['keys'][key]['tol'], key)
    compared += 1
  assert compared >= 10


@pytest.mark.parametrize('case', SIZES)
def test_uint8_resizing_equals_stored_pillow_to_the_byte(case):
  _, stored = oracle('resize')
  image = stored[f'in/{INPUTS[case]}']
  for name in ('bicubic', 'bilinear', 'lanczos'):
    method = 'lanczos3' if name == 'lanczos' else name
    mine = resize.resize_uint8(image, SIZES[case], method=method)
    pillow = stored[f'pil_uint8/{case}/{name}']
    np.testing.assert_array_equal(mine, pillow, err_msg=name)


@pytest.mark.parametrize('method', PILLOW)
@pytest.mark.parametrize('size', [(17, 20), (50, 62), (9, 7)])
def test_uint8_resizing_equals_the_installed_pillow_to_the_byte(method, size):
  """On white noise, the worst case for overshoot; alone and in a batch."""
  image = noise(4, 34, 40, 3)
  expected = [
    np.asarray(Image.fromarray(x).resize(size[::-1], PILLOW[method]))
    for x in image
  ]
  batch = resize.resize_uint8(image, size, method=method)
  np.testing.assert_array_equal(batch, expected)
  alone = resize.resize_uint8(image[2], size, method=method)
  np.testing.assert_array_equal(alone, expected[2])


def test_antialiased_bicubic_is_the_one_of_jax_itself():
  x = jax.random.normal(jax.random.key(0), (2, 24, 36, 3))
  mine = resize.resize(x, (10, 9))
  theirs = jax.image.resize(x, (2, 10, 9, 3), 'cubic', antialias=True)
  np.testing.assert_allclose(mine, theirs, atol=2e-6)


@pytest.mark.parametrize('factor', [2, 3, 6])
def test_area_is_the_mean_of_each_block_rounded_once(factor):
  image = noise(36, 24, 3)
  h, w = 36 // factor, 24 // factor
  blocks = image.reshape(h, factor, w, factor, 3).astype(np.int64).sum((1, 3))
  x = resize.resize(np.float32(image), (h, w), method='area')
  np.testing.assert_allclose(x, blocks / factor**2, atol=1e-4)
  mine = resize.resize_uint8(image, (h, w), method='area')
  expected = (2 * blocks + factor**2) // (2 * factor**2)  # ties round up
  np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize('size', [(9, 6), (9, 7), (40, 30)])
def test_area_has_the_bytes_of_the_data_pipeline(size):
  """Which averages in integers too, on the host: ties included."""
  image = noise(36, 24, 3)
  np.testing.assert_array_equal(
    resize.resize_uint8(image, size, method='area'),
    transforms.area_resize(image, size),
  )


def test_area_of_awkward_large_sizes_is_near_enough():
  image = noise(521, 523, 1)  # primes: beyond what float32 sums exactly
  mine = np.int32(resize.resize_uint8(image, (257, 263), method='area'))
  theirs = np.int32(transforms.area_resize(image, (257, 263)))
  assert np.abs(mine - theirs).max() <= 1
  assert (mine != theirs).mean() < 1e-3


def test_area_counts_fractions_of_pixels():
  x = jnp.arange(3.0)[None, :, None]  # pixels 0, 1, 2 into two of width 1.5
  y = resize.resize(x, (1, 2), method='area')[0, :, 0]
  np.testing.assert_allclose(y, [(0 + 0.5 * 1) / 1.5, (0.5 * 1 + 2) / 1.5])


def test_nearest_repeats_pixels_when_growing_and_takes_middles_otherwise():
  image = noise(4, 6, 3)
  grown = resize.resize_uint8(image, (8, 18), method='nearest')
  np.testing.assert_array_equal(grown, image.repeat(2, 0).repeat(3, 1))
  middles = resize.resize_uint8(grown, (4, 6), method='nearest')
  np.testing.assert_array_equal(middles, image)


@pytest.mark.parametrize('method', resize.METHODS)
def test_a_constant_stays_and_mirroring_commutes(method):
  for length, new_length in ((16, 5), (5, 16), (12, 3), (7, 7)):
    weights = resize.resize_weights(length, new_length, method=method)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    if method != 'nearest':  # in a block of four, the third is its middle
      np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)


def test_bicubic_restores_a_straight_line_away_from_the_border():
  ramp = np.linspace(-1, 1, 32, dtype=np.float32)[None, :, None]
  grown = resize.resize(ramp, (1, 64))[0, :, 0]
  centers = (np.arange(64) + 0.5) / 2 - 0.5
  expected = -1 + 2 * centers / 31
  np.testing.assert_allclose(grown[6:-6], expected[6:-6], atol=1e-6)


def test_resizing_keeps_dtype_leading_axes_and_values_under_jit():
  x = jax.random.normal(jax.random.key(1), (2, 3, 8, 8, 3), jnp.bfloat16)
  y = jax.jit(lambda x: resize.resize(x, 4))(x)
  assert y.shape == (2, 3, 4, 4, 3) and y.dtype == jnp.bfloat16
  alone = resize.resize(x[1, 2], 4)
  np.testing.assert_array_equal(np.float32(y[1, 2]), np.float32(alone))
  same = resize.resize(x, 8)
  np.testing.assert_array_equal(np.float32(same), np.float32(x))


@pytest.mark.parametrize(
  'call, message',
  [
    (lambda: resize.resize(noise(4, 4, 3), 2), 'takes floats.*uint8'),
    (lambda: resize.resize_uint8(np.ones((4, 4, 3)), 2), 'use to_uint8'),
    (lambda: resize.resize(np.ones((4, 4, 3)), 0), '4x4 pixels cannot'),
    (lambda: resize.resize(np.ones((4, 4)), 2), r'\.\.\., H, W, C'),
    (
      lambda: resize.resize(np.ones((4, 4, 3)), 2, method='cubic'),
      "'cubic'; known are.*'bicubic'",
    ),
    (
      lambda: ops_blur.gaussian_blur(jnp.ones((1, 1, 4, 3)), jnp.ones(1)),
      'more than 1 pixels a side',
    ),
    (lambda: pixels.grid(np.ones((2, 4, 4, 3)), 2), 'uint8.*float64'),
    (lambda: pixels.grid(noise(0, 4, 4, 3), 2), 'N > 0'),
  ],
)
def test_what_cannot_be_resized_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.parametrize('extent', [1, 5, 12, 16])
def test_a_corner_is_enlarged_as_the_whole_resize_does(extent):
  rng = np.random.default_rng(extent)
  canvas = rng.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
  found = resize.enlarge_corner(
    jnp.asarray(canvas), jnp.array([extent, 16]), 32
  )
  corner = canvas[0, :extent, :extent]
  np.testing.assert_allclose(
    found[0], resize.resize(corner, 32), rtol=0, atol=2e-6
  )
  np.testing.assert_allclose(
    found[1], resize.resize(canvas[1], 32), rtol=0, atol=2e-6
  )
