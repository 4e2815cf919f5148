import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.known_denoisers import (
  SCHEDULES,
  Mixture,
  check,
  gaussian,
  karras,
  normal,
  start,
  start_of_ve,
  std_of,
)
from support.oracles import assert_matches, oracle

from cdm.config import sampler_section
from cdm.diffusion import (
  dpm_solvers,
  grids,
  guidance,
  sampler_steps,
  samplers,
  schedules,
)
from cdm.diffusion.parameterization import Prediction, predict

VARIANCES = {
  'FIXED_SMALL': 'posterior',
  'FIXED_LARGE': 'beta',
  'LEARNED_RANGE': 'learned',
}


def test_the_mixture_denoiser_is_the_oracles():
  notes, stored = oracle('samplers')
  mine = Mixture(stored).mean_of_x_0(
    stored['mix/check_x'], stored['mix/check_sigma']
  )
  tol = notes['keys']['mix/check_D']['tol']
  assert_matches(mine, stored['mix/check_D'], tol)


@pytest.mark.parametrize('bits', [64, 32])
@pytest.mark.parametrize('name', SCHEDULES)
def test_ancestral_sampling_is_guided_diffusions(name, bits):
  notes, stored = oracle('samplers')
  for spacing in notes['settings']['ddpm']:
    grid = grids.respaced(SCHEDULES[name](), spacing=spacing)
    for kind, variance in VARIANCES.items():
      denoise = Mixture(stored, var=0.25)  # the oracle's v, used by 'learned'
      with jax.enable_x64(bits == 64):
        x_T, noise = start(stored, f'float{bits}')
        mine = samplers.ancestral(
          guidance.clip_x_0(denoise),
          x_T,
          logsnrs=grid,
          noise=noise,
          variance=variance,
        )
        mine = np.asarray(mine)
      assert mine.dtype == f'float{bits}'
      check(mine, notes, stored, f'ddpm/{name}/{spacing}/{kind}', bits)
      if kind == 'FIXED_SMALL' and spacing == '10':
        path = np.stack([*denoise.seen[1:], mine])
        check(path, notes, stored, f'ddpm/{name}/10/trajectory', bits)


@pytest.mark.parametrize('bits', [64, 32])
@pytest.mark.parametrize('name', SCHEDULES)
def test_ddim_is_guided_diffusions(name, bits):
  notes, stored = oracle('samplers')
  for spacing in notes['settings']['ddim']:
    grid = grids.respaced(SCHEDULES[name](), spacing=spacing)
    for eta in (0.0, 0.5, 1.0):
      for clip in (0, 1):
        denoise = Mixture(stored)
        with jax.enable_x64(bits == 64):
          x_T, noise = start(stored, f'float{bits}')
          mine = samplers.ddim(
            guidance.clip_x_0(denoise) if clip else denoise,
            x_T,
            logsnrs=grid,
            noise=noise,
            eta=eta,
          )
          mine = np.asarray(mine)
        assert mine.dtype == f'float{bits}'
        prefix = f'ddim/{name}/{spacing}'
        check(mine, notes, stored, f'{prefix}/eta{eta}/clip{clip}', bits)
        if eta == 0 and not clip:
          path = np.stack([*denoise.seen[1:], mine])
          check(path, notes, stored, f'{prefix}/trajectory', bits)


def run_ddim(stored, grid, x_T=None):
  with jax.enable_x64(True):
    if x_T is None:
      x_T, _ = start(stored, 'float64')
    denoise = Mixture(stored)
    return np.asarray(samplers.ddim(denoise, jnp.asarray(x_T), logsnrs=grid))


def test_ddim_is_euler_in_the_noise_to_signal_ratio():
  """k-diffusion and EDM solve the same ODE in the frame x_t / alpha."""
  notes, stored = oracle('samplers')
  for i, num_steps in enumerate(stored['conv/steps']):
    if num_steps > 128:
      continue
    grid = karras(num_steps)
    mine = run_ddim(stored, grid, start_of_ve(stored, grid))
    tol = notes['keys']['conv/euler/final']['tol']
    assert_matches(mine, stored['conv/euler/final'][i], tol, f'{num_steps}')
  for num_steps in notes['settings']['edm']:
    grid = karras(num_steps)
    mine = run_ddim(stored, grid, start_of_ve(stored, grid))
    key = f'edm/euler/{num_steps}'
    assert_matches(mine, stored[key], notes['keys'][key]['tol'], key)


def test_ddim_approaches_the_probability_flow_at_first_order():
  notes, stored = oracle('samplers')
  schedule = SCHEDULES['lin']()
  errors = []
  for num_steps in stored['vp_exact/ddim_steps']:
    grid = grids.respaced(schedule, spacing=str(num_steps))
    error = run_ddim(stored, grid) - stored['vp_exact/lin']
    errors.append(np.sqrt((error**2).mean()))
  key = 'vp_exact/ddim_rms_error'
  assert_matches(errors, stored[key], notes['keys'][key]['tol'], key)
  # measured at 250, 500 and 1000 steps: 0.99, 1.00
  orders = np.log2(np.divide(errors[-3:-1], errors[-2:]))
  np.testing.assert_allclose(orders, 1.0, atol=0.05)


@pytest.mark.parametrize('clip', [0, 1])
def test_the_sr3_loop_is_ancestral_sampling_on_a_short_linear_grid(clip):
  notes, stored = oracle('samplers')
  grid = grids.full_grid(schedules.linear(100, beta_min=1e-4, beta_max=0.1))
  denoise = Mixture(stored)
  x_T, noise = start(stored, 'float32')
  mine = samplers.ancestral(
    guidance.clip_x_0(denoise) if clip else denoise,
    x_T,
    logsnrs=grid,
    noise=noise,
    variance='posterior',  # of this code; the paper's is 'beta'
  )
  mine = np.asarray(mine)
  key = f'sr3_ancestral/clip{clip}'
  assert_matches(mine, stored[key], notes['keys'][key]['tol'], key)
  if clip:
    key = 'sr3_ancestral/trajectory_every10'
    path = np.stack([*denoise.seen[1:], mine])[9::10]
    assert_matches(path, stored[key], notes['keys'][key]['tol'], key)


@pytest.mark.parametrize(
  'run, order, sizes, options',
  [
    (samplers.ddim, 1, (64, 128, 256), {}),
  ],
)
def test_samplers_have_their_declared_order_on_gaussian_data(
  run, order, sizes, options
):
  """For x_0 ~ N(0, s^2) the flow is x_t = x_T std(x_t) / std(x_T)."""
  low, high, std = -6.0, 5.0, 0.5
  errors = []
  with jax.enable_x64(True):
    x_T = jnp.asarray(np.linspace(-2, 2, 24).reshape(2, 2, 2, 3))
    exact = x_T * std_of(std, high) / std_of(std, low)
    for n in sizes:
      grid = np.linspace(low, high, n + 1)
      x = run(gaussian(std), x_T, logsnrs=grid, **options)
      errors.append(float(jnp.abs(x - exact).max()))
  orders = np.log2(np.divide(errors[:-1], errors[1:]))
  # measured: 0.98, 0.99; 1.98, 1.99; 1.91, 1.96
  np.testing.assert_allclose(orders, order, atol=0.15)


@pytest.mark.parametrize(
  'run, options',
  [
    (samplers.ancestral, {'variance': 'beta'}),
    (samplers.ddim, {'eta': 0.7}),
    (samplers.ddim, {'eta': 0.0}),
  ],
)
def test_stopping_early_and_going_on_is_the_same_as_not_stopping(run, options):
  """A finite last level adds its noise, as if the chain went on."""
  x_T, steps = normal((2, 4, 4, 3)), normal((12, 2, 4, 4, 3), seed=1)
  grid = grids.respaced(schedules.cosine(100), spacing='12')
  early = grids.truncate(grid, logsnr=grid[7])
  np.testing.assert_array_equal(early, grid[:8])

  def at(first):
    return dict(noise=lambda j: steps[first + j], **options)

  whole = run(gaussian(0.5), x_T, logsnrs=grid, **at(0))
  x_s = run(gaussian(0.5), x_T, logsnrs=early, **at(0))
  x_0 = run(gaussian(0.5), x_s, logsnrs=grid[7:], **at(7))
  np.testing.assert_allclose(x_0, whole, atol=2e-6)


@pytest.mark.parametrize('variance', ['beta', 'posterior'])
def test_one_ancestral_step_is_the_step_of_ddpm(variance):
  """[DDPM] eq. 7 and alg. 2 in beta and alpha_bar, for one step t -> t - 1."""
  alpha_bar_s, beta = 0.7, 0.2
  alpha_bar_t = alpha_bar_s * (1 - beta)
  grid = [np.log(a / (1 - a)) for a in (alpha_bar_t, alpha_bar_s)]
  x_t, x_0, z = 1.3, -0.4, 0.9
  mean = np.sqrt(alpha_bar_s) * beta / (1 - alpha_bar_t) * x_0
  mean += np.sqrt(1 - beta) * (1 - alpha_bar_s) / (1 - alpha_bar_t) * x_t
  posterior = (1 - alpha_bar_s) / (1 - alpha_bar_t) * beta
  std = np.sqrt({'beta': beta, 'posterior': posterior}[variance])
  image = (1, 1, 1, 1)
  mine = samplers.ancestral(
    lambda x_t, logsnr: Prediction(jnp.full(image, x_0), None),
    jnp.full(image, x_t),
    logsnrs=grid,
    noise=lambda j: jnp.full(image, z),
    variance=variance,
  )
  np.testing.assert_allclose(mine, np.full(image, mean + std * z), rtol=1e-6)


@pytest.mark.parametrize(
  'run, options, std',
  [
    (samplers.ancestral, {'variance': 'beta'}, 1.0),
    (samplers.ancestral, {'variance': 'posterior'}, 0.0),
    (samplers.ddim, {'eta': 1.0}, 0.0),
    (samplers.ddim, {'eta': 0.5}, 0.0),
  ],
)
def test_a_sampler_stopped_early_has_the_spread_of_its_level(run, options, std):
  """[DDPM] sec. 3.2: beta is the right variance for x_0 ~ N(0, 1), the
  posterior one for a single point; then any number of steps is exact.
  """
  x_T, steps = normal((512, 4, 4, 3)), normal((8, 512, 4, 4, 3), seed=1)
  grid = grids.uniform_logsnr(schedules.cosine(1000), num_steps=8)
  early = grids.truncate(grid, logsnr=0.3)
  x = run(
    gaussian(std), x_T, logsnrs=early, noise=lambda j: steps[j], **options
  )
  # 24576 numbers: 3 standard errors of the spread are 1.4 %.
  np.testing.assert_allclose(x.std(), std_of(std, 0.3), rtol=0.014)


def test_the_step_to_x_0_adds_no_noise():
  x_T = normal((2, 4, 4, 3))
  denoise = gaussian(0.5)
  prediction = denoise(x_T, jnp.full(2, -3.0))
  given = dict(logsnrs=[-3.0, np.inf], noise=lambda j: jnp.full_like(x_T, 1e3))
  for x_0 in (
    samplers.ancestral(denoise, x_T, **given, variance='beta'),
    samplers.ancestral(denoise, x_T, **given, variance='posterior'),
    samplers.ddim(denoise, x_T, **given, eta=1.0),
    dpm_solvers.dpm_solver_pp_2m(denoise, x_T, **given),
  ):
    np.testing.assert_allclose(x_0, prediction.x_0, atol=1e-6)


def test_nothing_is_lost_at_extreme_noise_levels():
  """log-SNR +-60 in float32, predicted as eps, clipped as in practice."""
  x_T = normal((2, 4, 4, 3))
  grid = np.append(np.linspace(-60, 60, 25), np.inf)

  def denoise(x_t, logsnr):
    eps = gaussian(0.5)(x_t, logsnr).eps
    var = jnp.zeros_like(x_t)
    return predict('eps', eps, x_t, logsnr=logsnr, var=var)

  clipped = guidance.clip_x_0(denoise)
  noise = lambda j: jnp.ones_like(x_T)  # noqa: E731
  for x_0 in (
    samplers.ancestral(clipped, x_T, logsnrs=grid, noise=noise),
    samplers.ancestral(
      clipped, x_T, logsnrs=grid, noise=noise, variance='learned'
    ),
    samplers.ddim(clipped, x_T, logsnrs=grid, noise=noise, eta=1.0),
    dpm_solvers.dpm_solver_pp_2m(clipped, x_T, logsnrs=grid),
  ):
    assert jnp.all(jnp.abs(x_0) <= 1)


def test_a_sampler_can_be_compiled_with_its_grid_bound():
  x_T = normal((2, 4, 4, 3))
  grid = grids.respaced(schedules.cosine(100), spacing='ddim10')

  def run(x_T):
    return samplers.ddim(gaussian(0.5), x_T, logsnrs=grid)

  np.testing.assert_allclose(jax.jit(run)(x_T), run(x_T), atol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_a_sampler_keeps_the_dtype_of_its_start(dtype):
  with jax.enable_x64(True):
    x_T = normal((2, 4, 4, 3)).astype(dtype)
    asked = []

    def denoise(x_t, logsnr):
      asked.append(logsnr.dtype)
      return gaussian(0.5)(x_t, logsnr)

    given = dict(logsnrs=[-3.0, 0.0, np.inf], noise=lambda j: x_T)
    for x_0 in (
      samplers.ancestral(denoise, x_T, **given),
      samplers.ddim(denoise, x_T, **given, eta=1.0),
      dpm_solvers.dpm_solver_pp_2m(denoise, x_T, **given),
    ):
      assert x_0.dtype == dtype
    assert set(asked) == {jnp.dtype(dtype)}


def test_bad_sampling_options_are_named():
  x_T = jnp.zeros((1, 2, 2, 3))
  denoise, grid = gaussian(0.5), [-3.0, 0.0, 3.0]

  def noise(j):
    return x_T

  given = dict(logsnrs=grid, noise=noise)
  with pytest.raises(ValueError, match="known variances are .*'learned'"):
    samplers.ancestral(denoise, x_T, **given, variance='fixed')
  with pytest.raises(ValueError, match='the denoiser predicts none'):
    samplers.ancestral(denoise, x_T, **given, variance='learned')
  with pytest.raises(ValueError, match='eta = 0.5 needs noise'):
    samplers.ddim(denoise, x_T, logsnrs=grid, eta=0.5)
  with pytest.raises(ValueError, match='it can be at most 1.026'):
    samplers.ddim(denoise, x_T, **given, eta=1.5)
  with pytest.raises(ValueError, match='eta is -1; use 0 or more'):
    samplers.ddim(denoise, x_T, **given, eta=-1)
  with pytest.raises(ValueError, match='last_order is 3; use 1 or 2'):
    dpm_solvers.dpm_solver_pp_2m(denoise, x_T, logsnrs=grid, last_order=3)
  for bad in ([0.0, -1.0], [-np.inf, 0.0], [-1.0, np.inf, np.inf]):
    with pytest.raises(ValueError, match='finite and strictly increasing'):
      samplers.ddim(denoise, x_T, logsnrs=bad)
  with pytest.raises(ValueError, match=r'logsnrs has shape \(1,\)'):
    samplers.ddim(denoise, x_T, logsnrs=[0.0])


@pytest.mark.parametrize(
  'run',
  [
    functools.partial(samplers.ancestral, variance='beta'),
    functools.partial(samplers.ancestral, variance='learned'),
    functools.partial(samplers.ddim, eta=0.5),
    samplers.ddim,
    functools.partial(dpm_solvers.dpm_solver_pp_2m, last_order=1),
    dpm_solvers.dpm_solver_pp_2m,
  ],
)
def test_one_program_runs_any_grid_as_its_own_program_does(run):
  """Full, shorter and truncated grids as arguments, compiled once.

  The compiler may fuse a sum and a product in one of them, and not in the
  other: some last bits differ.
  """
  traced = []

  def denoise(x_t, logsnr):
    scale = jax.nn.sigmoid(logsnr)[:, None, None, None]
    x_0 = jnp.tanh(1.3 * scale * x_t) - 0.1 * x_t**2
    return Prediction(x_0, x_t - 0.7 * x_0, jnp.cos(x_t))

  def draw(logsnrs, x_T, key):
    traced.append(1)

    def noise(j):
      return jax.random.normal(jax.random.fold_in(key, j), x_T.shape)

    return run(denoise, x_T, logsnrs=logsnrs, noise=noise)

  chain = schedules.cosine(40)
  full = grids.full_grid(chain)
  several = [
    full,
    grids.truncate(full, logsnr=0.37),
    grids.uniform_logsnr(chain, num_steps=7),
  ]
  x_T = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
  key = jax.random.key(2)
  shared = jax.jit(draw)
  mine = [shared(sampler_steps.steps(run, grid), x_T, key) for grid in several]
  assert len(traced) == 1
  for grid, x in zip(several, mine, strict=True):
    own = jax.jit(functools.partial(draw, grid))(x_T, key)
    np.testing.assert_allclose(x, own, rtol=0, atol=1e-6)


def test_every_sampler_of_a_config_runs_grids_as_arguments():
  for run in sampler_section.SAMPLERS.values():
    steps = sampler_steps.steps(run, np.array([-2.0, 1.0, np.inf]))
    assert steps.count == 2
    assert all(
      len(row) == sampler_steps.STEPS_UNIT for row in steps.rows.values()
    )


@pytest.mark.parametrize('kind', sorted(sampler_section.SAMPLERS))
def test_every_sampler_runs_on_the_host_as_in_one_program(kind):
  """With a denoiser that no program could hold: it leaves JAX."""
  run = sampler_section.SAMPLERS[kind]
  noise_of = np.random.default_rng(3).standard_normal((5, 2, 4, 4, 3))
  noises = jnp.asarray(noise_of, jnp.float32)
  seen = []

  def denoise(x_t, logsnr):
    scale = jax.nn.sigmoid(logsnr)[:, None, None, None]
    x_0 = jnp.tanh(1.3 * scale * x_t)
    return Prediction(x_0, x_t - 0.7 * x_0, None)

  def by_hand(x_t, logsnr):
    seen.append(float(np.asarray(logsnr)[0]))
    return denoise(jnp.asarray(np.asarray(x_t)), logsnr)

  grid = np.array([-3.0, -1.0, 0.5, 2.0, np.inf])
  given = dict(logsnrs=sampler_steps.steps(run, grid))
  given['noise'] = lambda j: noises[j]
  x_T = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
  with sampler_steps.on_host():
    mine = run(by_hand, x_T, **given)
    plain = run(by_hand, x_T, **given | {'logsnrs': grid})
  assert len(seen) == 2 * sampler_steps.evaluations(run, grid)
  np.testing.assert_array_equal(mine, plain)
  expected = run(denoise, x_T, **given)
  np.testing.assert_allclose(mine, expected, rtol=0, atol=2e-6)
