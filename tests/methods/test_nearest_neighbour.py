"""The nearest neighbour, against sums of NumPy's int64."""

import functools

import jax
import numpy as np
import pytest

from cdm.methods import nearest_neighbour

compiled = jax.jit(nearest_neighbour.nearest)


def vectors(count, size, seed):
  return np.random.default_rng(seed).integers(0, 256, (count, size), np.uint8)


def search(queries, images, there=None, block=4):
  """-> (index, squared distance) of each query, block after block."""
  there = np.ones(len(images), bool) if there is None else there
  found = nearest_neighbour.Nearest.none(len(queries))
  for first in range(0, len(images), block):
    rows = slice(first, first + block)
    found = compiled(found, queries, images[rows], there[rows], np.int32(first))
  found = nearest_neighbour.Nearest(*map(np.asarray, found))
  distances = [
    nearest_neighbour.distance(found, n) for n in range(len(queries))
  ]
  return found.index.tolist(), distances


def brute_force(queries, images):
  """-> int64 [B, N] of squared distances."""
  differences = queries.astype(np.int64)[:, None] - images.astype(np.int64)
  return (differences**2).sum(axis=2)


@pytest.mark.parametrize('size', [3, 192, 1024, 12_288])
def test_distances_are_those_of_whole_numbers(size):
  queries, images = vectors(3, size, 0), vectors(8, size, 1)
  images[5] = queries[1]
  images[6], images[7] = 0, 255
  queries[2] = 255
  exact = brute_force(queries, images)
  assert search(queries, images) == (
    exact.argmin(axis=1).tolist(),
    exact.min(axis=1).tolist(),
  )
  high, low = jax.jit(nearest_neighbour.squared_distances)(queries, images)
  whole = (np.asarray(high, np.int64) << 16) + np.asarray(low, np.int64)
  np.testing.assert_array_equal(whole, exact)


def test_distances_beyond_32_bits_are_exact():
  """Those of images of 256 pixels: black and white are 12.8e9 apart."""
  size = 3 * 256**2
  queries = np.zeros((1, size), np.uint8)
  images = np.full((2, size), 255, np.uint8)
  images[0, 0] = 254  # nearer by 509
  index, (distance,) = search(queries, images, block=2)
  assert (index, distance) == ([0], 255**2 * size - 509)


@pytest.mark.parametrize('block', [1, 4, 8])
def test_of_equal_images_the_first_is_taken_in_any_blocks(block):
  images = vectors(8, 48, 2)
  images[[2, 5, 6]] = images[2]
  assert search(images[[5]], images, block=block) == ([2], [0])


@functools.cache
def small():
  return vectors(3, 48, 3), vectors(12, 48, 4)


def test_what_is_no_image_is_never_the_nearest():
  queries, images = small()
  index, _ = search(queries, images)
  there = np.ones(12, bool)
  there[index] = False
  exact = brute_force(queries, images).astype(float)
  exact[:, ~there] = np.inf
  assert search(queries, images, there)[0] == exact.argmin(axis=1).tolist()


def test_without_images_there_is_no_nearest():
  queries, images = small()
  assert search(queries, images, np.zeros(12, bool))[0] == [-1, -1, -1]
