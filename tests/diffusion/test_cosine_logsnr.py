"""The schedules of simple diffusion, against their formulas in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import grids
from cdm.diffusion.cosine_logsnr import interpolated_cosine, shifted_cosine

SHIFTED = shifted_cosine(1000, image_size=128, noise_size=64)
BETWEEN = interpolated_cosine(
  1000, image_size=256, noise_size_low=32, noise_size_high=256
)


def test_without_bounds_it_is_the_cosine_of_the_paper():
  """logsnr(t) = -2 log tan(pi t / 2) + 2 log(64 / d), [SiD]."""
  far = shifted_cosine(
    100, image_size=256, noise_size=64, logsnr_min=-60.0, logsnr_max=60.0
  )
  t = np.arange(1, 100) / 100
  expected = -2 * np.log(np.tan(np.pi * t / 2)) + 2 * np.log(64 / 256)
  np.testing.assert_allclose(far.logsnr[:-1], expected, atol=1e-9)
  # alpha is cos(pi t / 2) where nothing is shifted, [IDDPM] with offset 0.
  plain = shifted_cosine(
    100, image_size=64, noise_size=64, logsnr_min=-60.0, logsnr_max=60.0
  )
  np.testing.assert_allclose(
    1 / (1 + np.exp(-plain.logsnr[:-1])), np.cos(np.pi * t / 2) ** 2, rtol=1e-9
  )


def test_the_ends_are_the_bounds_moved_by_the_shift():
  ends = SHIFTED.closed_form.logsnr(np.array([0.0, 1.0]))
  shift = 2 * np.log(0.5)
  np.testing.assert_allclose(ends, [15 + shift, -15 + shift], atol=1e-9)
  ends = BETWEEN.closed_form.logsnr(np.array([0.0, 1.0]))
  np.testing.assert_allclose(ends, [15.0, -15 + 2 * np.log(1 / 8)], atol=1e-9)


def test_an_averaged_image_is_as_noisy_as_the_schedule_of_its_size_says():
  """[SiD] sec. 3.1: averaging k x k pixels divides the noise by k."""
  plain = shifted_cosine(1000, image_size=64, noise_size=64)
  pixels = 1 / np.sqrt(1 + np.exp(SHIFTED.logsnr))  # sigma
  signal = np.sqrt(1 - pixels**2)
  averaged = 2 * np.log(signal / (pixels / 2))  # 128 -> 64
  np.testing.assert_allclose(averaged, plain.logsnr, atol=1e-6)


def test_the_interpolation_is_linear_in_time():
  """t low + (1 - t) high, in the code of [SiD]'s appendix."""
  low, high = (
    shifted_cosine(1000, image_size=256, noise_size=size) for size in (32, 256)
  )
  t = np.arange(1, 1001) / 1000
  np.testing.assert_allclose(
    BETWEEN.logsnr, t * low.logsnr + (1 - t) * high.logsnr, atol=1e-9
  )


@pytest.mark.parametrize('schedule', [SHIFTED, BETWEEN], ids=['one', 'two'])
def test_both_forms_are_one_schedule(schedule):
  """The table is the closed form at t = 1/T, ..., 1, which float32 holds."""
  t = np.arange(1, 1001) / 1000
  form = schedule.closed_form
  np.testing.assert_array_equal(form.logsnr(t), schedule.logsnr)
  assert np.all(np.diff(schedule.logsnr) < 0)
  t = np.concatenate(
    [[0.0], np.geomspace(1e-6, 0.5), 1 - np.geomspace(1e-6, 0.5)]
  )
  np.testing.assert_allclose(
    form.logsnr(jnp.asarray(t, jnp.float32)),
    form.logsnr(np.asarray(t, np.float32).astype(np.float64)),
    atol=2e-5,
  )
  # The rate is minus the slope.
  t, h = np.linspace(0.01, 0.99, 33), 1e-6
  slope = (form.logsnr(t + h) - form.logsnr(t - h)) / (2 * h)
  np.testing.assert_allclose(form.rate(t), -slope, rtol=1e-6)


@pytest.mark.parametrize(
  'grid',
  [
    lambda s: grids.full_grid(s),
    lambda s: grids.respaced(s, spacing='25'),
    lambda s: grids.uniform_t(s, num_steps=7),
    lambda s: grids.trailing(s, num_steps=7),
    lambda s: grids.uniform_logsnr(s, num_steps=7),
    lambda s: grids.rho(s, num_steps=7),
  ],
)
def test_every_grid_runs_from_its_noisy_end(grid):
  for schedule in (SHIFTED, BETWEEN):
    made = grid(schedule)
    assert np.all(np.diff(made) > 0) and np.isposinf(made[-1])
    assert made[0] == pytest.approx(schedule.logsnr[-1])


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda: shifted_cosine(0, image_size=64, noise_size=64), 'num_steps is 0'),
    (lambda: shifted_cosine(9, image_size=64, noise_size=0), 'size is 0'),
    (
      lambda: shifted_cosine(
        9, image_size=64, noise_size=64, logsnr_min=3.0, logsnr_max=3.0
      ),
      r'logsnr_min is 3\.0; it must be below',
    ),
    (
      lambda: interpolated_cosine(
        9, image_size=64, noise_size_low=64, noise_size_high=32
      ),
      'noise_size_high is 32, below noise_size_low = 64',
    ),
  ],
)
def test_a_schedule_that_cannot_be_is_refused(make, words):
  with pytest.raises(ValueError, match=words):
    make()
