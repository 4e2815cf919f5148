"""The buckets, sums and filters of RAISR, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.methods import raisr_filters
from cdm.ops import resize

SIDE = 24


def small_hash(factor=2):
  return raisr_filters.Hash(
    factor=factor,
    patch=5,
    window=3,
    window_sigma=1.0,
    angles=8,
    strength_edges=(0.05, 0.1),
    coherence_edges=(0.3, 0.6),
  )


def smooth_images(number=2, seed=0):
  """-> float32 [N, SIDE, SIDE] in [0, 1], no two patches of which are alike."""
  small = np.random.default_rng(seed).uniform(size=(number, 10, 10, 1))
  large = resize.resize(small.astype(np.float32), SIDE, method='bicubic')
  return np.clip(np.asarray(large)[..., 0], 0.0, 1.0)


@functools.cache
def compiled(name, hash_, **options):
  function = getattr(raisr_filters, name)
  return jax.jit(lambda *arrays: function(*arrays, hash_, **options))


def bucket_of(image, y, x, h):
  """-> the bucket of one inner pixel, by the eigenvectors of its matrix."""
  radius, matrix = h.window // 2, np.zeros((2, 2))
  ring = np.arange(-radius, radius + 1)
  weights = np.exp(-(ring**2) / (2 * h.window_sigma**2))
  weights = np.outer(weights, weights) / weights.sum() ** 2
  for (i, j), weight in np.ndenumerate(weights):
    r, c = y + i - radius, x + j - radius
    g = [
      (image[r, c + 1] - image[r, c - 1]) / 2,
      (image[r + 1, c] - image[r - 1, c]) / 2,
    ]
    matrix += weight * np.outer(g, g)
  values, vectors = np.linalg.eigh(matrix)
  small, large = np.sqrt(np.maximum(values, 0))
  angle = np.arctan2(vectors[1, 1], vectors[0, 1]) / np.pi * h.angles
  digits = (
    (y % h.factor) * h.factor + x % h.factor,
    round(angle) % h.angles,
    np.searchsorted(h.strength_edges, large, 'right'),
    np.searchsorted(
      h.coherence_edges, (large - small) / (large + small), 'right'
    ),
  )
  return np.ravel_multi_index(digits, h.shape)


@pytest.mark.parametrize('factor', [2, 3, 4])
def test_a_bucket_is_type_angle_strength_and_coherence(factor):
  h, images = small_hash(factor), smooth_images()
  found = np.asarray(compiled('buckets', h)(images))
  wrong = [
    (y, x)
    for y in range(4, SIDE - 4)
    for x in range(4, SIDE - 4)
    if found[0, y, x] != bucket_of(images[0].astype(float), y, x, h)
  ]
  assert not wrong
  assert len(np.unique(found)) > 50 * factor


@pytest.mark.parametrize('factor', [2, 3])
@pytest.mark.parametrize('position', raisr_filters.POSITIONS)
def test_turned_images_have_the_classes_and_patches_of_the_image(
  factor, position
):
  h, image = small_hash(factor), smooth_images(1)[0]
  found, side = raisr_filters.classes(h), h.patch

  def canonical(image):
    """-> the class and the turned patch of every inner pixel."""
    bucket = np.asarray(compiled('buckets', h)(image[None]))[0]
    classes = found.of_bucket[bucket]
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    windows = windows.reshape(*windows.shape[:2], -1)
    order = found.order[found.position[bucket]][2:-2, 2:-2]
    return classes[2:-2, 2:-2], np.take_along_axis(windows, order, axis=2)

  def turn(array):
    t, r, c = position
    array = np.swapaxes(array, 0, 1) if t else array
    return array[:: -1 if r else 1, :: -1 if c else 1]

  classes, patches = canonical(image)
  turned_classes, turned_patches = canonical(np.ascontiguousarray(turn(image)))
  assert (turned_classes == turn(classes)).all()
  # Where a bucket is turned into itself, two positions of a patch are as good.
  alone = found.turned_into_itself.sum(axis=1)[turned_classes] == 1
  assert alone.any() and (turned_patches == turn(patches))[alone].all()


def numpy_sums(enlarged, original, h):
  """-> [classes, n + 2, n + 2] in float64, one patch after the other."""
  found, n, reach = raisr_filters.classes(h), h.patch**2, h.reach + h.factor
  bucket = np.asarray(compiled('buckets', h)(enlarged))
  sums, radius = np.zeros((found.count, n + 2, n + 2)), h.patch // 2
  for i, image in enumerate(enlarged.astype(np.float64)):
    for y in range(reach, SIDE - reach):
      for x in range(reach, SIDE - reach):
        patch = image[y - radius :, x - radius :][: h.patch, : h.patch]
        b = bucket[i, y, x]
        patch = patch.reshape(-1)[found.order[found.position[b]]]
        target = float(original[i, y, x]) - image[y, x]
        row = np.array([*(patch - image[y, x]), target, 1.0])
        sums[found.of_bucket[b]] += np.outer(row, row)
  return sums


@pytest.fixture(scope='module')
def sums():
  h, enlarged, original = small_hash(), smooth_images(), smooth_images(seed=1)
  return np.asarray(compiled('products', h)(enlarged, original))


def test_products_are_the_sums_of_all_patches(sums):
  expected = numpy_sums(smooth_images(), smooth_images(seed=1), small_hash())
  np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
  assert sums[:, -1, -1].sum() == 2 * (SIDE - 8) ** 2


def test_all_eight_positions_of_the_images_give_the_same_filters(sums):
  """They count every patch 8 times, so that the ridge counts 8 times too."""
  h, total = small_hash(), 0
  for t, r, c in raisr_filters.POSITIONS:
    enlarged, original = (
      x.swapaxes(1, 2) if t else x
      for x in (smooth_images(), smooth_images(seed=1))
    )
    enlarged, original = (
      np.ascontiguousarray(x[:, :: -1 if r else 1, :: -1 if c else 1])
      for x in (enlarged, original)
    )
    total = total + compiled('products', h)(enlarged, original)
  once = compiled('solve', h, ridge=0.1)(sums)
  eight = compiled('solve', h, ridge=0.8)(total)
  np.testing.assert_allclose(eight, once, atol=2e-4)
  assert np.abs(once).max() > 0.1


def test_filters_are_those_of_float64(sums):
  h = small_hash()
  found, n = raisr_filters.classes(h), h.patch**2
  filters = np.asarray(compiled('solve', h, ridge=0.1)(sums))
  bucket = int(np.flatnonzero(found.position == 5)[0])
  class_ = found.of_bucket[bucket]
  assert found.turned_into_itself[class_].sum() == 1
  # Buckets of one class: every one of them has the filter, turned back.
  q = sums[class_, :n, :n].astype(np.float64) + 0.1 * np.eye(n)
  h_turned = np.linalg.solve(q, sums[class_, :n, n].astype(np.float64))
  expected = np.empty(n)
  expected[found.order[5]] = h_turned
  np.testing.assert_allclose(filters[bucket], expected, atol=1e-4)


def test_a_known_filter_is_found_again():
  """The original is a linear filter of the enlarged image, everywhere."""
  h, images = small_hash(), smooth_images(8, seed=2)
  images += 0.05 * np.random.default_rng(3).normal(size=images.shape)
  images = images.astype(np.float32)
  sharper = 1.5 * images - 0.125 * (
    np.roll(images, 1, 1)
    + np.roll(images, -1, 1)
    + np.roll(images, 1, 2)
    + np.roll(images, -1, 2)
  )
  sums = compiled('products', h)(images, sharper)
  filters = compiled('solve', h, ridge=1e-4)(sums)
  made = np.asarray(compiled('apply', h)(images, filters))
  inner = np.s_[:, 5:-5, 5:-5]
  error = np.sqrt(np.mean((made - sharper)[inner] ** 2))
  assert error < 0.05 * np.sqrt(np.mean((images - sharper)[inner] ** 2))


def test_without_patches_nothing_is_changed():
  h, images = small_hash(), smooth_images()
  empty = jnp.zeros((raisr_filters.classes(h).count, 27, 27))
  filters = compiled('solve', h, ridge=0.1)(empty)
  np.testing.assert_array_equal(compiled('apply', h)(images, filters), images)


@pytest.mark.parametrize(
  ('given', 'sentence'),
  [
    (dict(patch=4), 'method.patch is 4; it must be odd'),
    (dict(window=0), 'method.window is 0; it must be odd'),
    (dict(window_sigma=0.0), 'method.window_sigma is 0.0'),
    (dict(angles=7), 'method.angles is 7; it must be even'),
    (dict(strength_edges=(0.2, 0.1)), 'method.strength_edges is'),
    (dict(coherence_edges=(0.0,)), 'method.coherence_edges is'),
  ],
)
def test_an_impossible_hash_is_refused_by_its_key(given, sentence):
  options = {
    **vars(small_hash()),
    **given,
  }
  with pytest.raises(ValueError, match=sentence):
    raisr_filters.Hash(**options)
