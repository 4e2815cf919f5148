"""The discrete chain against guided-diffusion's and SR3's own numbers.

Arrays stay NCHW as stored: nothing here depends on the place of the channels.
The oracle's PREVIOUS_X is left out, we have no such parameterisation. Fixed
variances are the samplers' alone, and the whole bound is not evaluated.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.diffusion import grids, guidance, losses, process, schedules
from cdm.diffusion.parameterization import predict

SCHEDULES = {
  'cos': lambda: schedules.cosine(4000),
  'lin': lambda: schedules.linear(1000, beta_min=1e-4, beta_max=2e-2),
  'sr3': lambda: schedules.linear(2000, beta_min=1e-6, beta_max=1e-2),
}
NOT_OURS = {
  'PREVIOUS_X_mean',
  'FIXED_SMALL_var_logvar',
  'FIXED_LARGE_var_logvar',
  'prior_bpd',
}


def tables(schedule):
  """The oracle's names for our tables."""
  law = process.posterior_tables(schedule.logsnr)
  variance = np.exp(law.log_variance)
  return {
    'betas': np.exp(law.log_beta),
    'alphas_cumprod': process.alpha_sigma(schedule.logsnr)[0] ** 2,
    'posterior_variance': np.append(0.0, variance[1:]),
    'posterior_log_variance_clipped': law.log_variance,
    'posterior_mean_coef1': law.on_x_0,
    'posterior_mean_coef2': law.on_x_t,
  }


@pytest.mark.parametrize('name', SCHEDULES)
def test_tables_are_those_of_guided_diffusion(name):
  notes, stored = oracle('diffusion_discrete')
  for key, mine in tables(SCHEDULES[name]()).items():
    key = f'{name}/{key}'
    assert_matches(mine, stored[key], notes['keys'][key]['tol'], key)


@pytest.mark.parametrize(
  'name, spacing', [('cos', '100'), ('cos', 'ddim50'), ('lin', '50')]
)
def test_a_respaced_chain_is_a_chain_with_fewer_steps(name, spacing):
  notes, stored = oracle('diffusion_discrete')
  schedule = SCHEDULES[name]()
  grid = grids.respaced(schedule, spacing=spacing)
  prefix = f'spaced/{name}/{spacing}'
  for key, mine in tables(schedules.Schedule(grid[-2::-1])).items():
    key = f'{prefix}/{key}'
    assert_matches(mine, stored[key], notes['keys'][key]['tol'], key)
  fed = schedules.t_from_logsnr(schedule, jnp.asarray(grid[-2::-1]))
  np.testing.assert_array_equal(fed, stored[f'{prefix}/timestep_map'])


def test_spacing_keeps_the_steps_that_improved_ddpm_keeps():
  notes, stored = oracle('diffusion_discrete')
  for num_steps, spacing in notes['settings']['spacings']:
    kept = grids.space_timesteps(num_steps, spacing)
    key = f'spacing/{num_steps}/{spacing}'
    np.testing.assert_array_equal(kept, stored[key], err_msg=key)


def per_example(name, stored, dtype):
  """Everything the oracle has for the four examples of one schedule."""
  schedule = SCHEDULES[name]()
  t = jnp.asarray(stored[f'{name}/t'], jnp.int32)
  x_0 = jnp.asarray(stored['in/x0'], dtype)
  eps = jnp.asarray(stored['in/noise'], dtype)
  output, var = jnp.split(jnp.asarray(stored['in/model_output'], dtype), 2, 1)
  logsnr = schedules.logsnr_at(schedule, t)

  def network(x_t, logsnr):
    return predict('eps', output, x_t, logsnr=logsnr, var=var)

  def start_x(x_t, logsnr):
    return predict('x_0', output, x_t, logsnr=logsnr, var=var)

  clipped = guidance.clip_x_0(network)
  at_t = dict(t=t, schedule=schedule)
  law = process.posterior_tables(schedule.logsnr)
  law = jax.tree.map(lambda table: jnp.asarray(table, dtype)[t], law)
  x_t = process.q_sample(x_0, eps, logsnr=logsnr)
  made = {'x_t': x_t}
  made['q_post_mean'] = (
    law.on_x_0[:, None, None, None] * x_0
    + law.on_x_t[:, None, None, None] * x_t
  )
  # The true posterior variance of the first step is 0; only its log is copied.
  variance = jnp.where(t == 0, 0, jnp.exp(law.log_variance))
  made['q_post_var_logvar'] = jnp.stack([variance, law.log_variance])

  for flag, denoise in enumerate((network, clipped)):
    prediction = denoise(x_t, logsnr)
    mean, log_variance = losses.reverse_gaussian(prediction, x_t, **at_t)
    made[f'p_clip{flag}/mean'] = mean
    made[f'p_clip{flag}/pred_xstart'] = prediction.x_0
  made['p_clip1/log_variance'] = log_variance
  made['vb_clip'] = losses.vb_terms(prediction, x_0, x_t, **at_t)
  prediction = guidance.clip_x_0(start_x)(x_t, logsnr)
  made['START_X_mean'], _ = losses.reverse_gaussian(prediction, x_t, **at_t)

  vb = losses.vb_terms(network(x_t, logsnr), x_0, x_t, **at_t)
  mse = losses.simple(network, x_0, eps, logsnr=logsnr)
  for loss, rescale in (('MSE', False), ('RESCALED_MSE', True)):
    total = losses.hybrid(network, x_0, eps, **at_t, rescale=rescale)
    made[f'loss_{loss}/mse'] = mse
    made[f'loss_{loss}/loss'] = total
    made[f'loss_{loss}/vb'] = vb * (schedule.num_steps / 1000 if rescale else 1)
  made['loss_KL/loss'] = vb
  made['loss_RESCALED_KL/loss'] = vb * schedule.num_steps
  return made


@pytest.mark.parametrize('bits', [32, 64])
@pytest.mark.parametrize('name', SCHEDULES)
def test_posteriors_and_losses_are_those_of_guided_diffusion(name, bits):
  notes, stored = oracle('diffusion_discrete')
  prefix = f'{name}/f{bits}/'
  with jax.enable_x64(bits == 64):
    made = per_example(name, stored, f'float{bits}')
    made = jax.tree.map(np.asarray, made)
  keys = {k.removeprefix(prefix) for k in notes['keys'] if prefix in k}
  assert keys - made.keys() == NOT_OURS
  for key, mine in made.items():
    assert mine.dtype == f'float{bits}', key
    tol = notes['keys'][prefix + key]['tol']
    assert_matches(mine, stored[prefix + key], tol, prefix + key)


def test_the_decoder_is_the_discretised_gaussian_of_ddpm():
  notes, stored = oracle('diffusion_discrete')
  with jax.enable_x64(True):
    mine = losses.discretized_log_likelihood(
      jnp.asarray(stored['in/x0'], jnp.float64),
      mean=jnp.asarray(stored['lik/means']),
      log_scale=jnp.asarray(stored['lik/log_scales']),
    )
  tol = notes['keys']['lik/log_probs']['tol']
  mine, peer = np.asarray(mine), stored['lik/log_probs']
  # Where a bin has less than 1e-9, the peer subtracts two float64 near 1 and
  # keeps fewer digits than the tolerance asks for: 1e-16 / 1e-9 = 1e-7.
  known = (peer > np.log(1e-9)) | (peer == peer.min())
  assert_matches(mine[known], peer[known], tol)
  np.testing.assert_allclose(mine, peer, rtol=0, atol=2e-4)


def test_noise_levels_and_posterior_are_those_of_the_sr3_code():
  notes, stored = oracle('diffusion_discrete')
  tol = {k: v['tol'] for k, v in notes['keys'].items() if 'tol' in v}
  schedule = SCHEDULES['sr3']()
  levels = np.append(1.0, process.alpha_sigma(schedule.logsnr)[0])
  key = 'sr3/noise_levels'
  assert_matches(levels, stored[key], tol[key], key)

  key = 'sr3/posterior_log_variance_floor1e-20'
  earlier = np.append(np.inf, schedule.logsnr[:-1])
  law = process.posterior(logsnr_t=schedule.logsnr, logsnr_s=earlier)
  floored = np.log(np.maximum(np.exp(law.log_variance), 1e-20))
  assert_matches(floored, stored[key], tol[key], key)

  level = stored['sr3/levels_in'].astype(np.float64)
  logsnr = jnp.asarray(np.log(level**2 / (1 - level**2)), jnp.float32)
  key = 'sr3/x_noisy'
  mine = process.q_sample(stored['in/x0'], stored['in/noise'], logsnr=logsnr)
  assert_matches(mine, stored[key], tol[key], key)

  key = 'sr3/post_mean_clip'
  t = jnp.full(4, 1000)
  logsnr = schedules.logsnr_at(schedule, t)
  x_t = jnp.asarray(stored['in/noise'])
  output = jnp.asarray(stored['in/model_output'][:, :3])
  denoise = guidance.clip_x_0(
    lambda x_t, logsnr: predict('eps', output, x_t, logsnr=logsnr)
  )
  law = process.posterior_tables(schedule.logsnr)
  x_0 = denoise(x_t, logsnr).x_0
  mean = law.on_x_0[1000] * x_0 + law.on_x_t[1000] * x_t
  assert_matches(mean, stored[key], tol[key], key)


def test_other_beta_schedules_of_the_sr3_code_can_be_expressed():
  notes, stored = oracle('diffusion_discrete')
  prefix = 'sr3/beta_schedules/'
  made = {
    'cosine': schedules.cosine(100),
    'linear': schedules.linear(100, beta_min=1e-4, beta_max=2e-2),
  }
  for name in ('quad', 'warmup10', 'warmup50', 'const'):
    made[name] = schedules.from_betas(stored[prefix + name])
  for name, schedule in made.items():
    tol = notes['keys'][prefix + name]['tol']
    mine = np.exp(process.posterior_tables(schedule.logsnr).log_beta)
    assert_matches(mine, stored[prefix + name], tol, name)
  # Its 'jsd' ends in beta = 1, where no signal is left and log-SNR is -inf.
  with pytest.raises(ValueError, match='strictly between 0 and 1'):
    schedules.from_betas(stored[prefix + 'jsd'])
