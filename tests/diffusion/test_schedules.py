import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import oracle

from cdm.diffusion import grids, process, schedules

CHAINS = {
  'cosine 4000': lambda: schedules.cosine(4000),
  'linear 1000': lambda: schedules.linear(1000, beta_min=1e-4, beta_max=2e-2),
  'sr3 2000': lambda: schedules.linear(2000, beta_min=1e-6, beta_max=1e-2),
  'short sr3 100': lambda: schedules.linear(100, beta_min=1e-4, beta_max=0.1),
  'one step': lambda: schedules.linear(1, beta_min=0.5, beta_max=0.5),
}


def alpha_bars(schedule):
  return process.alpha_sigma(schedule.logsnr)[0] ** 2


def betas(schedule):
  return np.exp(process.posterior_tables(schedule.logsnr).log_beta)


def test_cosine_signal_is_the_squared_cosine():
  """[IDDPM] eq. 17 where no beta is clipped: alpha_bar = f(t) / f(0)."""
  schedule = schedules.cosine(4000)
  time = np.arange(1, 4001) / 4000
  f = np.cos((np.append(0, time) + 0.008) / 1.008 * np.pi / 2) ** 2
  alpha_bar = alpha_bars(schedule)
  np.testing.assert_allclose(alpha_bar[:-2], f[1:-2] / f[0], rtol=1e-9)
  assert betas(schedule).max() == pytest.approx(0.999)


def test_linear_betas_are_those_of_ddpm():
  """[DDPM] sec. 4: 1e-4 to 0.02, T = 1000; alpha_bar_T = 4.0e-5."""
  schedule = CHAINS['linear 1000']()
  np.testing.assert_allclose(
    betas(schedule), np.linspace(1e-4, 0.02, 1000), rtol=1e-11
  )
  assert alpha_bars(schedule)[-1] == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize('chain', CHAINS)
def test_log_snr_always_falls_with_t(chain):
  logsnr = CHAINS[chain]().logsnr
  assert logsnr.dtype == np.float64
  assert np.isfinite(logsnr).all() and (np.diff(logsnr) < 0).all()
  # float32 keeps the steps apart, which t_from_logsnr relies on.
  assert (np.diff(logsnr.astype(np.float32)) < 0).all()


@pytest.mark.parametrize('chain', CHAINS)
def test_t_is_found_again_exactly_at_every_step(chain):
  schedule = CHAINS[chain]()
  t = jnp.arange(schedule.num_steps)
  logsnr = schedules.logsnr_at(schedule, t)
  assert logsnr.dtype == jnp.float32
  found = jax.jit(lambda x: schedules.t_from_logsnr(schedule, x))(logsnr)
  assert found.dtype == jnp.float32
  np.testing.assert_array_equal(found, t)


def test_t_between_steps_is_between_and_beyond_them_is_the_end():
  schedule = schedules.cosine(100)
  halfway = (schedule.logsnr[1:] + schedule.logsnr[:-1]) / 2
  found = schedules.t_from_logsnr(schedule, jnp.asarray(halfway))
  np.testing.assert_allclose(found, np.arange(99) + 0.5, atol=1e-4)
  ends = schedules.t_from_logsnr(schedule, jnp.asarray([np.inf, 99, -99]))
  np.testing.assert_array_equal(ends, [0, 0, 99])


def test_integer_timesteps_have_the_noise_that_diffusers_gives_them():
  """Levels of diffusers' DPM-Solver++ at the integer steps it reports."""
  notes, stored = oracle('samplers')
  chain = schedules.linear(1000, beta_min=1e-4, beta_max=2e-2)
  for n in notes['settings']['dpm']:
    prefix = f'dpmpp2m/lin/{n}/final_zero'
    t = stored[f'{prefix}/timesteps']
    sigma = np.exp(-chain.logsnr[t] / 2)  # noise to signal
    tol = notes['keys'][f'{prefix}/sigmas']['tol']
    np.testing.assert_allclose(sigma, stored[f'{prefix}/sigmas'][:-1], **tol)


@pytest.mark.parametrize('n', [1, 7, 2048])
def test_stratified_numbers_hit_every_nth_exactly_once(n):
  draw = jax.jit(lambda key: schedules.stratified(key, n))
  for seed in range(5):
    u = np.asarray(draw(jax.random.key(seed)), np.float64)
    assert u.min() >= 0 and u.max() < 1
    np.testing.assert_array_equal(np.sort(np.floor(u * n)), np.arange(n))


def test_each_stratified_number_alone_is_uniform():
  """One column per place in the batch, 4000 batches of 8."""
  keys = jax.random.split(jax.random.key(0), 4000)
  draw = jax.jit(jax.vmap(lambda key: schedules.stratified(key, 8)))
  u = np.asarray(draw(keys))
  for place in range(8):
    counts, _ = np.histogram(u[:, place], bins=16, range=(0, 1))
    # 250 expected in each bin; 5 standard deviations are 77.
    assert np.abs(counts - 250).max() < 77


def test_two_stratified_draws_of_a_batch_do_not_move_together():
  """Else time and augmentation level would be one number, not two."""
  keys = jax.random.split(jax.random.key(0), 400)
  draw = jax.jit(jax.vmap(lambda key: schedules.stratified(key, 64)))
  u = np.asarray(draw(keys))
  correlations = [
    np.corrcoef(a, b)[0, 1] for a, b in zip(u[::2], u[1::2], strict=True)
  ]
  # Each is about N(0, 1/63); 5 standard errors of their mean are 0.045.
  assert abs(np.mean(correlations)) < 0.045
  assert np.std(correlations) < 0.2


def test_discrete_levels_are_uniform_and_in_range():
  schedule = schedules.cosine(50)
  u = schedules.stratified(jax.random.key(0), 500)
  t = np.asarray(schedules.discrete_levels(schedule, u))
  assert t.dtype == np.int32
  np.testing.assert_array_equal(np.bincount(t, minlength=50), 10)
  edge = jnp.asarray([0.0, np.nextafter(np.float32(1), np.float32(0))])
  for chain in CHAINS.values():
    last = chain().num_steps - 1
    found = schedules.discrete_levels(chain(), edge)
    np.testing.assert_array_equal(found, [0, last])


def test_no_number_below_one_is_rounded_up_to_the_length_of_a_chain():
  """As float32 multiplies, for every length that a schedule may have."""
  lengths = np.arange(1, schedules.MOST_STEPS + 1)
  below_one = np.nextafter(np.float32(1), np.float32(0))
  last = (below_one * lengths.astype(np.float32)).astype(np.int32)
  np.testing.assert_array_equal(last, lengths - 1)


@pytest.mark.parametrize('chain', ['short sr3 100', 'linear 1000'])
def test_piecewise_levels_follow_sr3s_law(chain):
  """[SR3] sec. 2.4: the density of gamma is 1 / (T (gamma_{t-1} - gamma_t))
  in interval t, so its distribution function is linear between the steps.
  """
  schedule = CHAINS[chain]()
  levels = jax.jit(lambda u: schedules.piecewise_levels(schedule, u))
  u = (np.arange(100_000) + 0.37) / 100_000  # as `stratified` draws, in order
  logsnr = np.asarray(levels(jnp.asarray(u)), np.float64)
  gamma = 1 / (1 + np.exp(-logsnr))  # gamma = alpha_bar
  steps = np.append(1.0, alpha_bars(schedule))  # falls
  cdf = np.linspace(1, 0, len(steps))
  points = np.linspace(steps[-1], 1, 201)
  below = np.searchsorted(np.sort(gamma), points) / len(gamma)
  np.testing.assert_allclose(
    below, np.interp(points, steps[::-1], cdf[::-1]), atol=2e-4
  )
  # The first interval, a hundredth of the draws or less, by itself.
  first = np.sort(1 - gamma[gamma > steps[1]])
  uniform = (np.arange(len(first)) + 0.5) / len(first) * (1 - steps[1])
  np.testing.assert_allclose(first, uniform, atol=0.02 * (1 - steps[1]))


@pytest.mark.parametrize('chain', ['short sr3 100', 'sr3 2000'])
def test_training_and_sampling_levels_agree_at_the_steps(chain):
  schedule = CHAINS[chain]()
  T = schedule.num_steps
  levels = jax.jit(lambda u: schedules.piecewise_levels(schedule, u))
  with jax.enable_x64(True):
    trained = levels((np.arange(T) + 1e-9) / T)
  sampled = grids.full_grid(schedule)[-2::-1]
  np.testing.assert_allclose(trained, sampled, atol=2e-8)
  # Just before the next step the level is that of the step before t.
  with jax.enable_x64(True):
    trained = schedules.piecewise_levels(
      schedule, (jnp.arange(T) + 1) / T - 1e-12
    )
  np.testing.assert_allclose(trained[1:], sampled[:-1], atol=1e-6)


def test_piecewise_levels_are_finite_at_both_ends():
  for chain in CHAINS.values():
    u = jnp.asarray([0.0, 1e-7, 1 - 2**-24])
    assert jnp.isfinite(schedules.piecewise_levels(chain(), u)).all()
  chain = CHAINS['sr3 2000']()
  edge = jnp.asarray([np.nextafter(np.float32(1 / 2000), np.float32(0))])
  assert jnp.isfinite(schedules.piecewise_levels(chain, edge)).all()


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (
      lambda: schedules.linear(9, beta_min=1.0, beta_max=1.0),
      r'beta_min is 1\.0',
    ),
    (
      lambda: schedules.linear(9, beta_min=0.5, beta_max=1.0),
      r'beta_max is 1\.0',
    ),
    (lambda: schedules.cosine(9, max_beta=0.0), r'max_beta is 0\.0'),
    (lambda: schedules.cosine(9, offset=1.01), r'offset is 1\.01'),
    (lambda: schedules.from_betas(np.array([0.1, 1.0])), 'strictly between'),
    (lambda: schedules.from_betas(np.array([])), r'shape \(0,\)'),
    (lambda: grids.space_timesteps(9, 'ddim0'), 'list of section counts'),
    (
      lambda: grids.uniform_logsnr(schedules.cosine(1), num_steps=2),
      'no log-SNR range to put 2 steps in',
    ),
    (
      lambda: schedules.cosine(schedules.MOST_STEPS + 1),
      'use at most 1000000',
    ),
  ],
)
def test_numbers_are_refused_by_name_at_both_ends_of_their_range(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_numbers_at_the_ends_of_their_range_are_taken():
  assert schedules.cosine(2, offset=0).num_steps == 2
  assert schedules.cosine(2, offset=1).num_steps == 2
  one = schedules.linear(1, beta_min=0.5, beta_max=0.5)
  for grid in (
    grids.full_grid(one),
    grids.uniform_logsnr(one, num_steps=1),
  ):
    np.testing.assert_array_equal(grid, [one.logsnr[0], np.inf])
  two = schedules.cosine(2)
  np.testing.assert_array_equal(
    grids.uniform_logsnr(two, num_steps=2), grids.full_grid(two)
  )


def test_bad_schedules_and_spacings_are_named():
  with pytest.raises(ValueError, match='strictly between 0 and 1'):
    schedules.from_betas(np.array([0.0, 0.02]))
  with pytest.raises(ValueError, match=r'beta_min is 0\.0; use one between'):
    schedules.linear(10, beta_min=0.0, beta_max=0.02)
  with pytest.raises(ValueError, match=r'beta_max is 0\.01; use one from'):
    schedules.linear(10, beta_min=0.02, beta_max=0.01)
  with pytest.raises(ValueError, match=r'max_beta is 1\.0; use one between'):
    schedules.cosine(10, max_beta=1.0)
  with pytest.raises(ValueError, match=r'offset is -1; use one from 0 to 1'):
    schedules.cosine(10, offset=-1)
  with pytest.raises(ValueError, match='num_steps is 1000000000; use at most'):
    schedules.cosine(10**9)
  with pytest.raises(ValueError, match='num_steps is 0'):
    schedules.cosine(0)
  with pytest.raises(ValueError, match=r'shape \(2, 2\)'):
    schedules.from_betas(np.full((2, 2), 0.1))
  for spacing in ('', 'ddim', 'ddim10,20', 'fast', '10,-5', '0'):
    with pytest.raises(ValueError, match='list of section counts'):
      grids.space_timesteps(1000, spacing)
  with pytest.raises(ValueError, match='ask for at most 500'):
    grids.space_timesteps(1000, '10,501')
  with pytest.raises(
    ValueError, match='keeps exactly 300 of .* such as 250 or 334'
  ):
    grids.space_timesteps(1000, 'ddim300')
  for kept in (250, 334):  # strides of 4 and 3
    assert len(grids.space_timesteps(1000, f'ddim{kept}')) == kept
