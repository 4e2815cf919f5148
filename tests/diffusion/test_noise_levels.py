"""Levels have the law that is asked for, and its density is known."""

import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.diffusion import noise_levels, schedules
from cdm.diffusion.cosine_logsnr import interpolated_cosine, shifted_cosine
from cdm.diffusion.noise_levels import LogNormal

SHIFTED = shifted_cosine(1000, image_size=128, noise_size=64)
BETWEEN = interpolated_cosine(
  1000, image_size=256, noise_size_low=32, noise_size_high=256
)
COSINE = schedules.cosine(1000)
U = jnp.asarray((np.arange(4096) + 0.5) / 4096)  # stratified


def test_log_normal_levels_are_normal():
  """Each of 4096 stratified levels has its own share of the law."""
  wide = shifted_cosine(9_000, image_size=64, noise_size=64)
  logsnr = noise_levels.draw(LogNormal(-0.8, 1.6), wide, U)
  law = statistics.NormalDist(-0.8, 1.6)
  below = [law.cdf(x) for x in np.asarray(-logsnr / 2, float).tolist()]
  np.testing.assert_allclose(below, U, atol=1e-4)


def test_log_normal_levels_are_those_of_edm2s_training():
  notes, stored = oracle('edm2_unet')
  theirs = notes['settings']['train']
  z = stored['train/rnd_normal'].reshape(-1)
  levels = LogNormal(theirs['P_mean'], theirs['P_std'])
  u = jax.scipy.special.ndtr(jnp.asarray(z))
  mine = jnp.exp(-noise_levels.draw(levels, SHIFTED, u) / 2)
  expected = stored['train/sigma_f64'].reshape(-1)
  assert_matches(mine, expected, {'rtol': 2e-5, 'atol': 0.0})


def test_levels_beyond_the_schedule_are_clipped_to_it():
  levels = LogNormal(-1.2, 3.0)
  logsnr = noise_levels.draw(
    levels, COSINE, jnp.append(U, jnp.array([0.0, 1.0]))
  )
  ends = np.float32(COSINE.logsnr[[-1, 0]])
  assert logsnr.min() == ends[0] and logsnr.max() == ends[1]
  clipped = np.isin(np.asarray(logsnr), ends).mean()
  share = noise_levels.share_beyond(levels, COSINE)
  assert share == pytest.approx(clipped, abs=1e-3) and share > 0.09
  assert noise_levels.share_beyond('discrete', COSINE) == 0.0


def test_continuous_levels_are_the_closed_form_and_not_the_table():
  logsnr = noise_levels.draw('continuous', SHIFTED, U)
  expected = SHIFTED.closed_form.logsnr(np.asarray(U, np.float64))
  np.testing.assert_allclose(logsnr, expected, atol=2e-5)
  assert len(np.unique(logsnr)) == 4096


@pytest.mark.parametrize(
  ('levels', 'schedule', 'rel'),
  [
    ('discrete', COSINE, 1e-3),
    ('discrete', schedules.linear(1000, beta_min=1e-4, beta_max=0.02), 1e-3),
    ('discrete', SHIFTED, 1e-3),
    ('continuous', SHIFTED, 1e-4),
    ('continuous', BETWEEN, 1e-4),
    (LogNormal(), SHIFTED, 1e-4),
  ],
)
def test_the_spread_turns_a_mean_into_an_integral_over_log_snr(
  levels, schedule, rel
):
  """Of a Gaussian bump around log-SNR 1, whose integral is sqrt(2 pi)."""
  u = jnp.asarray((np.arange(200_000) + 0.5) / 200_000)
  logsnr = noise_levels.draw(levels, schedule, u)
  spread = jnp.exp(noise_levels.log_spread(levels, schedule)(logsnr))
  bump = jnp.exp(-0.5 * jnp.square(logsnr - 1.0))
  found = float(np.mean(np.asarray(spread * bump, float)))
  assert found == pytest.approx(math.sqrt(2 * math.pi), rel=rel)


@pytest.mark.parametrize(
  ('levels', 'schedule'),
  [('continuous', BETWEEN), (LogNormal(), SHIFTED)],
  ids=['continuous', 'log_normal'],
)
def test_the_density_is_that_of_a_histogram(levels, schedule):
  u = jnp.asarray((np.arange(400_000) + 0.5) / 400_000)
  logsnr = np.asarray(noise_levels.draw(levels, schedule, u))
  count, edges = np.histogram(logsnr, bins=np.linspace(-6.0, 8.0, 57))
  middle = jnp.asarray((edges[1:] + edges[:-1]) / 2)
  density = jnp.exp(-noise_levels.log_spread(levels, schedule)(middle))
  np.testing.assert_allclose(
    density, count / len(logsnr) / np.diff(edges), rtol=0.01
  )


@pytest.mark.parametrize(
  ('levels', 'words'),
  [
    ('cosine', r"method\.levels is 'cosine'; use 'discrete'"),
    ('continuous', 'a table alone; use --config.method.levels=discrete'),
    (LogNormal(20.0, 1.0), r'100% of the levels of ln s ~ N\(20, 1\^2\)'),
  ],
)
def test_levels_that_cannot_be_drawn_are_refused(levels, words):
  with pytest.raises(ValueError, match=words):
    noise_levels.check(levels, COSINE)


def test_a_law_needs_a_spread_and_a_density_a_closed_form():
  with pytest.raises(ValueError, match=r'std is 0\.0'):
    LogNormal(0.0, 0.0)
  with pytest.raises(ValueError, match="levels is 'piecewise'"):
    noise_levels.log_spread('piecewise', COSINE)
