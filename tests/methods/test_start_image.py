"""Sampling that begins at a noised image, against the law of Gaussian images.

For x_0 ~ N(m, s^2) the network is known, and the flow from x_t = alpha x +
sigma eps ends at m + (s / std) (x_t - alpha m), with std^2 = alpha^2 s^2 +
sigma^2. So the end is linear in the start image x: its slope is s alpha / std,
and its noise has the standard deviation s sigma / std.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.diffusion import dpm_solvers, grids, process, samplers, schedules
from cdm.methods.diffusion import Objective, Sampling, diffusion
from cdm.methods.diffusion_options import Start
from cdm.methods.lowres_conditioning import Lowres, continuous_logsnr, upsample
from cdm.ops.keys import image_keys

SIZE = 16
MEAN, STD = 0.3, 0.4
SCHEDULE = schedules.linear(1000, beta_min=1e-4, beta_max=2e-2)
FINE = grids.uniform_logsnr(SCHEDULE, num_steps=200)
KEYS = image_keys(0, np.arange(4))


def gaussian_network(mean=MEAN, std=STD):
  """What stands for a network whose images are N(mean, std^2)."""

  def apply(_, x, logsnr, **given):
    alpha, sigma = process.alpha_sigma(logsnr[:, None, None, None])
    gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
    return mean + gain * (x - alpha * mean)

  return types.SimpleNamespace(
    apply=apply,
    num_classes=None,
    null_class=False,
    lowres_level=False,
    learned_variance=False,
    condition_on='logsnr',
    parameter_dtype=lambda name: jnp.float32,
  )


def method(net=None, lowres=None, run=None, grid=FINE, **options):
  run = run or dpm_solvers.dpm_solver_pp_2m
  return diffusion(
    net or gaussian_network(),
    SCHEDULE,
    Objective(prediction='x_0', **options),
    Sampling(run=run, grid=grid, clip='none'),
    image_size=SIZE,
    lowres=lowres,
  )


def drawn(value, logsnr, made=None, **given):
  """-> images that begin at a constant image."""
  made = made or method()
  start = Start(jnp.full((4, SIZE, SIZE, 3), value), logsnr)
  return np.asarray(made.sample({}, keys=KEYS, start=start, **given))


def law(logsnr, std=STD):
  """-> slope of the image, and standard deviation of the noise, at the end."""
  alpha, sigma = process.alpha_sigma(float(logsnr))
  return std * np.array([alpha, sigma]) / np.hypot(alpha * std, sigma)


@pytest.mark.parametrize('level', [0.1, 0.5, 0.9])
def test_the_end_is_the_linear_function_of_the_start(level):
  logsnr = float(continuous_logsnr(level))
  slope, std = law(logsnr)
  low, high = drawn(-0.5, logsnr), drawn(0.7, logsnr)
  np.testing.assert_allclose(high - low, slope * 1.2, atol=2e-3)
  expected = MEAN + slope * (0.7 - MEAN)
  many = np.sqrt(high.size)
  assert abs(high.mean() - expected) < 5 * std / many + 2e-3
  assert high.std() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize('logsnr', [-np.inf, SCHEDULE.logsnr[-1] - 1])
def test_level_one_is_noise_as_nearly_as_the_schedule_ends_in_it(logsnr):
  """What is left of the image is alpha of the noisiest level, here 0.006."""
  slope, std = law(SCHEDULE.logsnr[-1])
  assert slope < 0.01
  x = drawn(0.7, logsnr)
  from_noise = np.asarray(method().sample({}, keys=KEYS))
  # The same noise, of a standard deviation that is sigma of it and not 1.
  np.testing.assert_allclose(x - from_noise, slope * 0.7, atol=2e-3)
  assert x.std() == pytest.approx(std, rel=0.05)
  assert abs(x.mean() - MEAN) < 0.03


def test_a_small_level_leaves_the_image_alone():
  logsnr = float(continuous_logsnr(1e-4))
  _, std = law(logsnr)
  assert std < 2e-3
  np.testing.assert_allclose(drawn(0.7, logsnr), 0.7, atol=6 * std)


@pytest.mark.parametrize(
  'run', [samplers.ancestral, functools.partial(samplers.ddim, eta=1.0)]
)
def test_the_law_of_images_stays_with_noise_in_every_step(run):
  """A start image that is drawn from the law leads to the law again."""
  rng = np.random.default_rng(0)
  image = MEAN + STD * rng.standard_normal((4, SIZE, SIZE, 3))
  made = method(run=run, grid=grids.full_grid(SCHEDULE))
  x = np.asarray(
    made.sample({}, keys=KEYS, start=Start(jnp.asarray(image), 0.5))
  )
  assert x.mean() == pytest.approx(MEAN, abs=0.05)
  assert x.std() == pytest.approx(STD, rel=0.06)
  # Both are the image behind x_t, which holds this share of its variance.
  alpha, sigma = process.alpha_sigma(0.5)
  share = (alpha * STD) ** 2 / ((alpha * STD) ** 2 + sigma**2)
  known = np.corrcoef(x.ravel(), image.ravel())[0, 1]
  assert known == pytest.approx(share, abs=0.06)


def test_a_residual_target_begins_at_the_residual():
  """Of N(0, s^2): from the enlarged image itself only noise is left."""
  lowres, scale = Lowres(size=4, upsample='nearest'), 0.2
  made = method(gaussian_network(0.0), lowres, residual_scale=scale)
  low = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (4, 4, 4, 3)))
  enlarged = upsample(low, SIZE, lowres)
  logsnr = 0.7
  slope, std = law(logsnr)
  for offset in (0.0, 0.3):
    start = Start(enlarged + offset, logsnr)
    x = made.sample({}, keys=KEYS, lowres=low, start=start)
    rest = np.asarray(x - enlarged)
    assert rest.std() == pytest.approx(scale * std, rel=0.06)
    assert rest.mean() == pytest.approx(slope * offset, abs=0.01)


def test_levels_share_one_program_and_are_those_that_are_compiled_in():
  made = method(grid=grids.uniform_logsnr(SCHEDULE, num_steps=20))
  image = jnp.full((4, SIZE, SIZE, 3), 0.7)

  @jax.jit
  def run(tuned):
    return made.sample({}, keys=KEYS, tuned=tuned, start=Start(image))

  for level in (0.2, 0.8, 1.0):
    logsnr = float(continuous_logsnr(level))
    x = run(made.tune(None, logsnr))
    np.testing.assert_allclose(x, drawn(0.7, logsnr, made), atol=1e-5)
  assert run._cache_size() == 1


def test_a_grid_that_is_stopped_may_also_begin_late():
  """x at the stop is alpha times x_0, and noise again."""
  logsnr, stop = -2.0, 3.0
  low, high = (drawn(v, logsnr, stop_logsnr=stop) for v in (-0.5, 0.7))
  slope, _ = law(logsnr)
  alpha, sigma = process.alpha_sigma(stop)
  grown = np.hypot(alpha * STD, sigma) / STD
  np.testing.assert_allclose(high - low, slope * 1.2 * grown, atol=2e-3)
