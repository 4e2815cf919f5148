"""--sampler and --steps: any sampler on any grid, in any number of steps."""

import inspect

import jax
import numpy as np
import pytest
from support.known_denoisers import SCHEDULES, gaussian, normal, std_of

from cdm.config import redrawn_sampler, sampler_section
from cdm.config.redrawn_sampler import Redraw
from cdm.diffusion import guidance, process, sampler_steps

STD = 0.5
KINDS = list(sampler_section.SAMPLERS)
SCHEDULE = SCHEDULES['cos']()
GRIDS = {
  'respaced': dict(spacing='ddim50'),
  'full': {},
  'linear': dict(num_steps=100, beta_min=1e-4, beta_max=0.185),
  'uniform_logsnr': dict(num_steps=50),
  'uniform_t': dict(num_steps=50),
  'trailing': dict(num_steps=50),
  'rho': dict(num_steps=18, power=5.0),
  'levels': dict(logsnrs=(-8.0, -2.0, 3.0)),
}
KEPT = dict(clip='none', guidance_weight=2.0, guidance_interval=(-5.0, 5.0))


def section(kind='ddim', grid='full', **options):
  return {'kind': kind, **options, 'grid': dict(kind=grid, **GRIDS[grid])}


def built(kind=None, steps=None, schedule=SCHEDULE, **of):
  made = redrawn_sampler.redrawn(section(**of), Redraw(kind, steps))
  return sampler_section.sampling(schedule, made)


def test_every_kind_of_grid_is_tried():
  assert set(GRIDS) == set(sampler_section.GRIDS)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('old', KINDS)
def test_another_sampler_leaves_all_else_as_it_was(old, kind):
  made = redrawn_sampler.redrawn(section(old, 'rho', **KEPT), Redraw(kind))
  assert made == section(kind, 'rho', **KEPT)
  sampler_section.sampling(SCHEDULE, made)  # takes every key


@pytest.mark.parametrize(
  ('old', 'options', 'new', 'kept'),
  [
    ('ancestral', {'variance': 'learned'}, 'ddim', {}),
    ('ddim', {'eta': 1.0}, 'heun', {}),
    ('ddim', {'eta': 1.0}, 'dpm_solver_pp_2m', {'eta': 1.0}),
    ('euler', {'churn': 4.0}, 'dpm_2', {'churn': 4.0}),
    # 3 is no order of 2M, and 2 is not the default of 3M.
    ('dpm_solver_pp_3m', {'last_order': 3}, 'dpm_solver_pp_2m', {}),
    ('dpm_solver_pp_3m', {'last_order': 1}, None, {'last_order': 1}),
  ],
)
def test_options_go_that_the_new_sampler_has_not(old, options, new, kept):
  made = redrawn_sampler.redrawn(section(old, **options), Redraw(new))
  assert made == section(new or old, **kept)
  sampler_section.sampling(SCHEDULE, made)


@pytest.mark.parametrize('steps', [1, 2, 4, 30])
@pytest.mark.parametrize('grid', list(GRIDS))
def test_every_grid_gets_the_number_of_steps(grid, steps):
  sampling = built(steps=steps, grid=grid, **KEPT)
  assert len(sampling.grid) == steps + 1
  # From noise as in training, to x_0.
  np.testing.assert_allclose(sampling.grid[0], SCHEDULE.logsnr[-1], rtol=1e-12)
  assert sampling.grid[-1] == np.inf
  assert (sampling.clip, sampling.guidance_weight) == ('none', 2.0)


def test_options_of_a_grid_stay_where_they_do_not_count_steps():
  made = redrawn_sampler.redrawn(section(grid='rho'), Redraw(steps=9))
  assert made['grid'] == dict(kind='rho', num_steps=9, power=5.0)


def test_as_many_steps_as_the_schedule_are_the_whole_of_it():
  whole = built(steps=SCHEDULE.num_steps, grid='levels').grid
  np.testing.assert_array_equal(whole, built(grid='full').grid)


@pytest.mark.parametrize('grid', ['full', 'rho'])
@pytest.mark.parametrize('kind', KINDS)
def test_one_step_is_the_mean_of_all_images_given_the_noise(kind, grid):
  """E[x_0 | x_T] = alpha s^2 / (alpha^2 s^2 + sigma^2) x_T, if x_0 ~ N(0, s^2).

  The second evaluation of Heun, DPM2 and 2S is left out in a step to x_0.
  """
  sampling = built(kind, 1, grid=grid)
  x_T = normal((2, 3, 3, 3))
  x_0 = sampling.run(
    gaussian(STD), x_T, logsnrs=sampling.grid, noise=lambda j: 0 * x_T
  )
  alpha, sigma = process.alpha_sigma(sampling.grid[0])
  gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
  np.testing.assert_allclose(x_0, gain * x_T, rtol=1e-4, atol=1e-7)
  assert sampler_steps.evaluations(sampling.run, sampling.grid) == 1


@pytest.mark.parametrize('kind', [k for k in KINDS if k != 'ancestral'])
def test_more_steps_come_nearer_to_the_flow(kind):
  """The flow maps x_T to x_T s / std(x_T), if x_0 ~ N(0, s^2)."""
  x_T, errors = normal((1, 4, 4, 3)), []
  for steps in (1, 2, 4, 16):
    sampling = built(kind, steps, SCHEDULES['lin'](), grid='linear')
    x_0 = sampling.run(
      gaussian(STD), x_T, logsnrs=sampling.grid, noise=lambda j: 0 * x_T
    )
    exact = STD / std_of(STD, sampling.grid[0]) * x_T
    errors.append(float(abs(x_0 - exact).max()))
  assert errors == sorted(errors, reverse=True), errors
  assert errors[-1] < errors[0] / 4, errors


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('steps', [1, 2, 4])
def test_the_evaluations_that_are_told_are_those_that_happen(kind, steps):
  sampling, seen = built(kind, steps, grid='trailing'), []

  def denoise(x_t, logsnr):
    jax.debug.callback(lambda level: seen.append(level), logsnr)
    return gaussian(STD)(x_t, logsnr)

  x_T = normal((1, 2, 2, 3))
  x_0 = sampling.run(denoise, x_T, logsnrs=sampling.grid, noise=lambda j: x_T)
  jax.block_until_ready(x_0)
  jax.effects_barrier()
  assert len(seen) == sampler_steps.evaluations(sampling.run, sampling.grid)
  levels = sampler_steps.evaluated_levels(sampling.run, sampling.grid)
  np.testing.assert_allclose(
    np.sort(np.ravel(seen)), np.sort(levels), rtol=1e-5
  )
  as_arrays = sampler_steps.steps(sampling.run, sampling.grid)
  np.testing.assert_allclose(
    sampler_steps.levels_of(as_arrays), levels, rtol=1e-6
  )


@pytest.mark.parametrize('kind', ['ddim', 'heun', 'dpm_2'])
def test_the_guided_evaluations_that_are_told_are_those_that_happen(kind):
  """Guidance in an interval evaluates the other network only there."""
  sampling, calls, interval = built(kind, 8, grid='trailing'), [], (-3.0, 2.0)

  def weak(x_t, logsnr):
    jax.debug.callback(lambda: calls.append(1))
    return gaussian(STD / 2)(x_t, logsnr)

  guided = guidance.autoguidance(
    gaussian(STD), weak, weight=0.5, interval=interval
  )
  x_T = normal((1, 2, 2, 3))
  x_0 = sampling.run(guided, x_T, logsnrs=sampling.grid, noise=lambda j: x_T)
  jax.block_until_ready(x_0)
  jax.effects_barrier()
  levels = sampler_steps.evaluated_levels(sampling.run, sampling.grid)
  told = guidance.guided_evaluations(levels, interval)
  assert len(calls) == told
  assert 0 < told < len(levels) == guidance.guided_evaluations(levels, None)


@pytest.mark.parametrize(
  ('sampler', 'steps', 'expected'),
  [
    ('heun', None, [('heun', None), ('heun', None)]),
    (None, '8', [(None, 8), (None, 8)]),
    ('base:heun,sr:ddim', '4', [('heun', 4), ('ddim', 4)]),
    ('euler', 'sr:1', [('euler', None), ('euler', 1)]),
  ],
)
def test_flags_are_for_all_stages_or_for_those_named(sampler, steps, expected):
  pairs = redrawn_sampler.parse(sampler, steps)
  found = redrawn_sampler.of_stages(pairs, ['base', 'sr'])
  assert found == [Redraw(*both) for both in expected]


def test_what_names_a_stage_goes_before_what_names_none():
  pairs = (('stages.sr.steps', '2'), ('steps', '8'), ('start_level', '0.5'))
  assert redrawn_sampler.of_stages(pairs, ['base', 'sr']) == [
    Redraw(steps=8, start_level=0.5),  # the later stages have an image anyway
    Redraw(steps=2),
  ]


@pytest.mark.parametrize(
  ('sampler', 'steps', 'message'),
  [
    ('huen', None, r'--sampler=huen: known samplers are ancestral, ddim, .*'),
    ('huen', None, r'Did you mean heun\?'),
    ('a:heun,b:', None, '--sampler=: known samplers'),
    ('heun,ddim', None, "'heun' names no stage"),
    (':heun', None, "':heun' names no stage"),
    ('sr:heun,sr:ddim', None, "names 'sr' twice"),
    (None, '0', '--steps=0: give the number of steps, from 1 to 1000000'),
    (None, '2.5', '--steps=2.5: give'),
    (None, 'sr:1,sr:2', "--steps=sr:1,sr:2 names 'sr' twice"),
    (None, '9' * 5000, r'--steps=9{80}: give'),
  ],
)
def test_flags_that_say_nothing_are_refused(sampler, steps, message):
  with pytest.raises(ValueError, match=message):
    redrawn_sampler.parse(sampler, steps)


def test_a_stage_that_is_not_there_is_named_with_those_that_are():
  pairs = redrawn_sampler.parse('top:heun', None)
  with pytest.raises(ValueError, match=r"'top'; there are base, sr"):
    redrawn_sampler.of_stages(pairs, ['base', 'sr'])
  with pytest.raises(ValueError, match=r'a single stage .* --sampler=heun'):
    redrawn_sampler.of_single(pairs)


@pytest.mark.parametrize(
  ('redraw', 'key', 'is_refused'),
  [
    (Redraw('heun'), 'sampler.kind', True),
    (Redraw('heun'), 'sampler.grid.num_steps', False),
    (Redraw('heun'), 'stages.0.sampler.kind', False),
    (Redraw(steps=4), 'sampler.kind', False),
    (Redraw(steps=4), 'sampler.grid.kind', False),
    (Redraw(steps=4), 'sampler.grid.spacing', True),
    (Redraw(steps=4), 'sampler.grid.num_steps', True),
    (Redraw('heun', 4), 'sampler.guidance_weight', False),
  ],
)
def test_overrides_that_choose_the_same_are_refused(redraw, key, is_refused):
  if not is_refused:
    redrawn_sampler.check_overrides(redraw, [(key, '1')])
    return
  with pytest.raises(ValueError, match=f'--config.{key}=1 choose the same'):
    redrawn_sampler.check_overrides(redraw, [(key, '1')])


def test_keys_of_a_sweep_are_told_from_overrides():
  pairs = [
    ('sampler', 'heun'),
    ('stages.sr.steps', '4'),
    ('sampler.guidance_weight', '1.0'),
    ('stages.sr.level', '0.1'),
  ]
  overrides, redraws = redrawn_sampler.split(pairs)
  assert overrides == (pairs[2], pairs[3]) and redraws == (pairs[0], pairs[1])
  with pytest.raises(ValueError, match='known samplers'):
    redrawn_sampler.split([('sampler', 'fast')])


def test_sections_that_cannot_be_changed_are_refused():
  with pytest.raises(ValueError, match=r'config\.sampler\.kind is None'):
    redrawn_sampler.redrawn({}, Redraw('heun'))
  with pytest.raises(ValueError, match=r'config\.sampler\.grid is None'):
    redrawn_sampler.redrawn({'kind': 'ddim'}, Redraw(steps=3))


def test_every_sampler_is_called_alike():
  """`redrawn` finds the options behind the first two arguments."""
  for run in sampler_section.SAMPLERS.values():
    assert list(inspect.signature(run).parameters)[:2] == ['denoise', 'x_T']
