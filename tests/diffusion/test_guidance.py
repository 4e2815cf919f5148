import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import guidance, process
from cdm.diffusion.parameterization import Prediction, predict

SHAPE = (4, 6, 6, 3)
LOGSNR = jnp.asarray([-8.0, -1.0, 0.5, 6.0])


def draw(seed):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(SHAPE))


def always(output, kind='x_0', var=None):
  """A denoiser that says the same whatever it sees."""

  def denoise(x_t, logsnr):
    return predict(kind, output, x_t, logsnr=logsnr, var=var)

  return denoise


def assert_consistent(prediction, x_t):
  again = process.q_sample(prediction.x_0, prediction.eps, logsnr=LOGSNR)
  np.testing.assert_allclose(again, x_t, atol=1e-5)


def test_clipping_keeps_x_0_in_range_and_eps_in_agreement():
  x_t = draw(0)
  prediction = guidance.clip_x_0(always(2 * draw(1), var=x_t))(x_t, LOGSNR)
  np.testing.assert_allclose(
    prediction.x_0, np.clip(2 * np.asarray(draw(1)), -1, 1)
  )
  assert_consistent(prediction, x_t)
  np.testing.assert_array_equal(prediction.var, x_t)


def test_clipping_bounds_may_differ_from_pixel_to_pixel():
  """Those of a residual (x_0 - u) / scale are those of the image x_0."""
  upsampled, scale, x_t = 0.5 * draw(2), 0.1, draw(0)
  low, high = (-1 - upsampled) / scale, (1 - upsampled) / scale
  denoise = guidance.clip_x_0(always(20 * draw(1)), low=low, high=high)
  image = upsampled + scale * denoise(x_t, LOGSNR).x_0
  expected = np.clip(upsampled + scale * 20 * draw(1), -1, 1)
  np.testing.assert_allclose(image, expected, atol=1e-6)


def test_what_is_in_range_is_not_touched():
  x_t, x_0 = draw(0), 0.9 * jnp.tanh(draw(1))
  for kind, output in (('x_0', x_0), ('eps', draw(2))):
    denoise = always(output, kind)
    before = denoise(x_t, jnp.full(4, 9.0))
    assert jnp.abs(before.x_0).max() > 0.5
    for wrap in (
      lambda d: guidance.clip_x_0(d, low=-9.0, high=9.0),
      lambda d: guidance.dynamic_threshold(d, low=-9.0, high=9.0),
    ):
      after = wrap(denoise)(x_t, jnp.full(4, 9.0))
      np.testing.assert_array_equal(after.x_0, before.x_0)
      np.testing.assert_array_equal(after.eps, before.eps)


@pytest.mark.parametrize('spread', [(0.2, 1, 3, 9), (0.45, 0.55, 0.6, 0.7)])
def test_dynamic_thresholding_is_imagens(spread):
  """[Imagen] sec. 2.3, in NumPy, image by image."""
  x_t, x_0 = draw(0), draw(1) * jnp.asarray(spread)[:, None, None, None]
  denoise = guidance.dynamic_threshold(always(x_0), percentile=95.0)
  prediction = denoise(x_t, LOGSNR)
  for mine, given in zip(prediction.x_0, np.asarray(x_0), strict=True):
    s = max(np.percentile(np.abs(given), 95.0), 1.0)
    np.testing.assert_allclose(mine, np.clip(given, -s, s) / s, atol=1e-6)
  assert_consistent(prediction, x_t)


def test_dynamic_thresholding_of_a_residual_is_that_of_its_image():
  upsampled, scale, x_t = 0.5 * draw(2), 0.1, draw(0)
  residual = 20 * draw(1)
  plain = guidance.dynamic_threshold(always(upsampled + scale * residual))
  bounded = guidance.dynamic_threshold(
    always(residual),
    low=(-1 - upsampled) / scale,
    high=(1 - upsampled) / scale,
  )
  np.testing.assert_allclose(
    upsampled + scale * bounded(x_t, LOGSNR).x_0,
    plain(x_t, LOGSNR).x_0,
    atol=1e-5,
  )


def test_guidance_is_eq_6_of_the_paper():
  """(1 + w) eps_c - w eps_u."""
  x_t, eps_c, eps_u = draw(0), draw(1), draw(2)
  guided = guidance.classifier_free(
    always(eps_c, 'eps', var=x_t), always(eps_u, 'eps'), weight=0.3
  )
  prediction = guided(x_t, LOGSNR)
  np.testing.assert_allclose(
    prediction.eps, 1.3 * eps_c - 0.3 * eps_u, atol=1e-5
  )
  np.testing.assert_array_equal(prediction.var, x_t)
  mild = LOGSNR > -2  # at -8 the comparison is of numbers near 100
  again = process.q_sample(prediction.x_0, prediction.eps, logsnr=LOGSNR)
  np.testing.assert_allclose(again[mild], x_t[mild], atol=1e-5)


def test_rescaled_guidance_keeps_the_contrast_of_the_conditional_image():
  """[Lin] eq. 15 and 16, in NumPy."""
  x_t, x_c, x_u = draw(0), draw(1), draw(2)
  for share in (0.7, 1.0):
    guided = guidance.classifier_free(
      always(x_c), always(x_u), weight=3.0, rescale=share
    )
    prediction = guided(x_t, LOGSNR)
    strong, weak = np.asarray(x_c), np.asarray(x_u)
    plain = strong + 3.0 * (strong - weak)
    ratio = [a.std() / b.std() for a, b in zip(strong, plain, strict=True)]
    ratio = np.reshape(ratio, (-1, 1, 1, 1))
    expected = share * ratio * plain + (1 - share) * plain
    np.testing.assert_allclose(prediction.x_0, expected, rtol=1e-4, atol=1e-5)
    assert_consistent(prediction, x_t)
  with pytest.raises(ValueError, match='rescale is 1.5'):
    guidance.classifier_free(always(x_c), always(x_u), weight=1.0, rescale=1.5)


def test_guidance_by_a_worse_network_is_extrapolation_from_it():
  """D = D_weak + w (D_strong - D_weak); w = 1 is the strong one alone.

  This is the paper's w, from which 1 is taken to make ours.
  """
  x_t, strong, weak = draw(0), draw(1), draw(2)
  for weight in (1.0, 2.1):
    guided = guidance.autoguidance(
      always(strong), always(weak), weight=weight - 1
    )
    np.testing.assert_allclose(
      guided(x_t, LOGSNR).x_0, weak + weight * (strong - weak), atol=1e-5
    )


def test_guidance_acts_inside_its_interval_only():
  x_t, x_c, x_u = draw(0), draw(1), draw(2)
  calls = []

  def unconditional(x_t, logsnr):
    jax.debug.callback(lambda: calls.append(1))
    return always(x_u)(x_t, logsnr)

  guided = guidance.classifier_free(
    always(x_c), unconditional, weight=2.0, interval=(-1.0, 1.0)
  )
  prediction = jax.jit(guided)(x_t, LOGSNR)  # -8 and 6 are outside
  x_0 = np.asarray(prediction.x_0)
  expected = np.asarray(3 * x_c - 2 * x_u)
  np.testing.assert_allclose(x_0[1:3], expected[1:3], atol=1e-5)
  np.testing.assert_array_equal(x_0[[0, 3]], np.asarray(x_c)[[0, 3]])
  assert_consistent(prediction._replace(x_0=prediction.x_0), x_t)
  jax.effects_barrier()
  assert len(calls) == 1

  outside = jax.jit(guided)(x_t, jnp.full(4, 3.0))
  jax.effects_barrier()
  assert len(calls) == 1  # nothing to guide: the second network did not run
  np.testing.assert_array_equal(outside.x_0, x_c)


def test_wrappers_compose():
  x_t = draw(0)
  guided = guidance.classifier_free(
    always(draw(1)), always(draw(2)), weight=4.0
  )
  prediction = guidance.clip_x_0(guided)(x_t, LOGSNR)
  assert isinstance(prediction, Prediction)
  assert jnp.abs(prediction.x_0).max() <= 1
  assert_consistent(prediction, x_t)


def test_bad_guidance_options_are_named():
  denoise = always(draw(0))
  with pytest.raises(ValueError, match=r'percentile is 0; use one in \(0, 100'):
    guidance.dynamic_threshold(denoise, percentile=0)
  with pytest.raises(ValueError, match='with low < high'):
    guidance.classifier_free(denoise, denoise, weight=1.0, interval=(2, 1))
