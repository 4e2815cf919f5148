import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import process
from cdm.diffusion.parameterization import predict
from cdm.methods import lowres_projection
from cdm.ops import resize

METHODS = ('bicubic', 'bilinear', 'lanczos3', 'area', 'nearest')
LOGSNR = jnp.asarray([-3.0, 4.0])
EVERYWHERE = jnp.asarray([True, True])


def draw(seed, shape):
  return jnp.asarray(
    np.random.default_rng(seed).standard_normal(shape), jnp.float32
  )


def predicted(x_0, z, *, where=EVERYWHERE, **options):
  """Returns the prediction of a denoiser that says x_0, projected onto z."""
  x_t = draw(5, x_0.shape)

  def denoise(x_t, logsnr):
    return predict('x_0', x_0, x_t, logsnr=logsnr)

  wrapped = lowres_projection.project(denoise, z, where=where, **options)
  return wrapped(x_t, LOGSNR), x_t


@pytest.mark.parametrize(
  ('downsample', 'upsample'), list(itertools.product(METHODS, METHODS))
)
def test_the_image_shrinks_to_the_low_res_image(downsample, upsample):
  x_0, z = draw(0, (2, 16, 12, 3)), draw(1, (2, 4, 5, 3))
  options = dict(downsample=downsample, upsample=upsample)
  found, x_t = predicted(x_0, z, **options)
  shrunk = resize.resize(found.x_0, (4, 5), method=downsample)
  np.testing.assert_allclose(shrunk, z, atol=3e-5)
  again = process.q_sample(found.x_0, found.eps, logsnr=LOGSNR)
  np.testing.assert_allclose(again, x_t, atol=1e-5)
  # Onto what an image shrinks to already, it is projected as it is.
  found, _ = predicted(
    x_0, resize.resize(x_0, (4, 5), method=downsample), **options
  )
  np.testing.assert_allclose(found.x_0, x_0, atol=1e-5)


def test_of_means_over_blocks_it_is_the_pseudo_inverse_of_ddnm():
  """[DDNM]: A^+ y + (1 - A^+ A) x_0; here A^+ repeats every pixel."""
  x_0, z = draw(0, (2, 8, 8, 3)), draw(1, (2, 2, 2, 3))
  found, _ = predicted(x_0, z, downsample='area', upsample='nearest')
  means = np.asarray(x_0).reshape(2, 2, 4, 2, 4, 3).mean((2, 4))
  expected = x_0 + np.kron(z - means, np.ones((1, 4, 4, 1)))
  np.testing.assert_allclose(found.x_0, expected, atol=1e-6)


def test_the_correction_is_as_smooth_as_the_enlargement():
  """A constant that is missing everywhere is added everywhere."""
  x_0 = draw(0, (2, 16, 16, 3))
  z = resize.resize(x_0, 4, method='area') + 0.25
  found, _ = predicted(x_0, z, downsample='area', upsample='bicubic')
  np.testing.assert_allclose(found.x_0, x_0 + 0.25, atol=1e-5)


def test_an_image_whose_low_res_image_is_noisy_stays_as_it_is():
  x_0, z = draw(0, (2, 16, 16, 3)), draw(1, (2, 4, 4, 3))
  options = dict(downsample='bicubic', upsample='bicubic')
  found, _ = predicted(x_0, z, where=jnp.asarray([False, True]), **options)
  np.testing.assert_array_equal(found.x_0[0], x_0[0])
  assert jnp.abs(found.x_0[1] - x_0[1]).max() > 0.1


def test_of_a_residual_it_is_the_image_that_is_projected():
  residual, u = draw(0, (2, 16, 16, 3)), draw(2, (2, 16, 16, 3))
  z = draw(1, (2, 4, 4, 3))
  found, _ = predicted(
    residual, z, downsample='area', upsample='bicubic', center=u, scale=0.2
  )
  shrunk = resize.resize(u + 0.2 * found.x_0, 4, method='area')
  np.testing.assert_allclose(shrunk, z, atol=1e-5)
