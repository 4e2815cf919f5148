"""Gaussian blur, against SciPy and at sigma 0."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from cdm.ops import blur as ops_blur


def test_blur_equals_scipy_with_reflected_borders():
  x = jax.random.normal(jax.random.key(2), (2, 6, 7, 3))
  sigma = np.array([0.4, 0.6], np.float32)
  mine = jax.jit(ops_blur.gaussian_blur)(x, sigma)
  for i in range(2):
    theirs = ndimage.gaussian_filter(
      np.float64(x[i]), sigma[i], mode='mirror', radius=1, axes=(0, 1)
    )
    np.testing.assert_allclose(mine[i], theirs, atol=1e-6)


def test_blur_of_sigma_zero_changes_no_bit():
  x = jax.random.normal(jax.random.key(3), (3, 5, 5, 3))
  blur = jax.jit(lambda x, sigma: ops_blur.gaussian_blur(x, sigma, size=5))
  mine = blur(x, jnp.array([0.0, 0.5, 0.0]))
  np.testing.assert_array_equal(mine[::2], x[::2])
  assert np.abs(mine[1] - x[1]).max() > 0.1
