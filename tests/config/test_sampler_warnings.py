"""Samplers that begin where they cannot work are warned of, with a remedy."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from cdm.config import loader, sampler_section, sampler_warnings, stage
from cdm.diffusion import edm_samplers, process
from cdm.diffusion.parameterization import Prediction

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
SR3 = 'sr3_faces16to128'
STD = 0.5


def built(name, **overrides):
  pairs = [(k.replace('__', '.'), str(v)) for k, v in overrides.items()]
  return stage.stage(loader.load(CONFIGS / f'{name}.py', pairs))


def test_a_grid_that_no_beta_can_mend_is_respaced():
  """Two steps with a last beta below 1 cannot reach 4e-5 from 1e-4 alone."""
  one = built(SR3, sampler__grid__num_steps=1)
  text = sampler_warnings.sampler_start(one)
  assert '--config.sampler.grid.kind=respaced' in text
  assert '--config.sampler.grid.spacing=1.' in text


def test_a_stride_that_leaves_the_noisiest_levels_out_is_warned_of():
  """'ddim4' of 64 steps begins at step 48, '4' at step 63."""
  text = sampler_warnings.sampler_start(
    built('smoke', sampler__grid__spacing='ddim4')
  )
  assert '--config.sampler.grid.spacing=4.' in text
  assert sampler_warnings.sampler_start(built('smoke')) is None


def test_a_grid_noisier_than_training_is_warned_of_where_it_is_embedded():
  grid = {'kind': 'linear', 'num_steps': 64, 'beta_min': 1e-4, 'beta_max': 0.9}
  sampler = {'kind': 'ddim', 'grid': grid}
  small = stage.stage(loader.load(CONFIGS / 'smoke.py'))
  levels = sampler_section.grid(small.schedule, grid)
  assert levels[0] < small.schedule.logsnr[-1] - 2
  text = sampler_warnings.sampler_start(
    small, sampler, sampler_key='stages.a.s'
  )
  assert text.startswith('config.stages.a.s.grid begins at')
  assert 'never trained' in text
  # A table of t has nothing beyond its end, where the nearest t is embedded.
  by_step = built('smoke', model__condition_on='t')
  assert sampler_warnings.sampler_start(by_step, sampler) is None


def error_of(run, grid):
  """Returns the error of a sampler's image, for images of the law N(0, STD^2).

  Their denoiser is known: it divides x_t by its variance. What x_T leads to
  with the exact flow is STD times x_T over its standard deviation.
  """

  def denoise(x_t, logsnr):
    alpha, sigma = (
      jnp.reshape(v, (-1, 1)) for v in process.alpha_sigma(logsnr)
    )
    x_0 = STD**2 * alpha / (STD**2 * alpha**2 + sigma**2) * x_t
    return Prediction(x_0, (x_t - alpha * x_0) / sigma, None)

  alpha, sigma = process.alpha_sigma(grid[0])
  exact = STD / (alpha**2 * STD**2 + sigma**2) ** 0.5
  with jax.enable_x64():
    x = run(denoise, jnp.ones((1, 1)), logsnrs=grid)
  return abs(float(x[0, 0]) - exact)


@pytest.mark.parametrize('sigma_max', [None, 80])
@pytest.mark.parametrize('steps', [4, 8, 32])
def test_the_error_that_is_foretold_is_that_of_the_sampler(steps, sigma_max):
  section = {'kind': 'rho', 'num_steps': steps, 'sigma_max': sigma_max}
  grid = sampler_section.grid(built('cifar_small_32').schedule, section)
  for run, second_order in (
    (edm_samplers.heun, True),
    (edm_samplers.euler, False),
  ):
    told = sampler_warnings.gaussian_error(grid, second_order=second_order)
    assert told == pytest.approx(error_of(run, grid), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize('steps', [4, 8, 16])
def test_heun_from_the_end_of_a_cosine_schedule_is_warned_of(steps):
  """The cosine schedule ends at sigma / alpha = 20,000."""
  grid = {'kind': 'trailing', 'num_steps': steps}
  small = built('cifar_small_32')
  sampler = {'kind': 'heun', 'grid': grid}
  text = sampler_warnings.heun_start(small, sampler, sampler_key='stages.a.s')
  assert text.startswith('config.stages.a.s.grid begins at sigma / alpha 20,')
  assert f'{steps} steps' in text
  assert sampler_warnings.of_stage(small, sampler) == [
    text.replace('stages.a.s', 'sampler')
  ]


@pytest.mark.parametrize('steps, works', [(4, False), (8, True), (32, True)])
def test_the_remedy_of_heun_is_named_where_it_works(steps, works):
  small = built('cifar_small_32')
  grid = {'kind': 'rho', 'num_steps': steps, 'sigma_max': 80}
  levels = sampler_section.grid(small.schedule, grid)
  first_order = error_of(edm_samplers.euler, levels)
  worse = error_of(edm_samplers.heun, levels) > 2 * first_order
  assert worse != works
  text = sampler_warnings.heun_start(small, {'kind': 'heun', 'grid': grid})
  assert bool(text) == worse
  far = {'kind': 'trailing', 'num_steps': steps}
  text = sampler_warnings.heun_start(small, {'kind': 'heun', 'grid': far})
  assert ('grid.sigma_max=80' in text) == works
  assert 'dpm_solver_pp_2m' in text


def test_other_samplers_and_single_steps_begin_anywhere():
  small = built('cifar_small_32')
  grid = {'kind': 'trailing', 'num_steps': 4}
  for kind in ('ddim', 'euler', 'dpm_2', 'dpm_solver_pp_2m'):
    assert not sampler_warnings.of_stage(small, {'kind': kind, 'grid': grid})
  one = {'kind': 'heun', 'grid': {**grid, 'num_steps': 1}}
  assert not sampler_warnings.of_stage(small, one)
