"""Grids rise from noise to x_0 through the levels that they are made of."""

import numpy as np
import pytest
from support.oracles import assert_matches, oracle

from cdm.config import sampler_section
from cdm.diffusion import grids, schedules


def test_grids_rise_to_x_0_through_levels_of_the_schedule():
  schedule = schedules.cosine(4000)
  for grid, n in (
    (grids.full_grid(schedule), 4000),
    (grids.respaced(schedule, spacing='250'), 250),
    (grids.respaced(schedule, spacing='10,15,20'), 45),
    (grids.respaced(schedule, spacing='ddim50'), 50),
    (grids.uniform_logsnr(schedule, num_steps=20), 20),
  ):
    assert grid.shape == (n + 1,) and grid.dtype == np.float64
    assert (np.diff(grid) > 0).all() and grid[-1] == np.inf
  assert set(grids.respaced(schedule, spacing='250')) <= {
    *schedule.logsnr,
    np.inf,
  }
  grid = grids.uniform_logsnr(schedule, num_steps=20)
  assert (grid[0], grid[-2]) == (schedule.logsnr[-1], schedule.logsnr[0])
  np.testing.assert_allclose(np.diff(grid[:-1], n=2), 0, atol=1e-12)


@pytest.mark.parametrize(
  ('num_steps', 'count', 'stride'),
  [
    (1000, 50, 20),
    (100, 100, 1),
    (100, 34, 3),  # the last kept step is T - 1
    (5, 2, 3),  # the least stride, as 4 keeps two steps as well
    (4, 1, 4),
    (1, 1, 1),
  ],
)
def test_a_fixed_stride_is_the_least_that_keeps_so_many_steps(
  num_steps, count, stride
):
  kept = grids.space_timesteps(num_steps, f'ddim{count}')
  np.testing.assert_array_equal(kept, np.arange(count) * stride)


@pytest.mark.parametrize(
  ('num_steps', 'spacing', 'expected'),
  [
    (10, '10', range(10)),
    (10, '1', [0]),
    (10, '2', [0, 9]),
    (10, '4', [0, 3, 6, 9]),
    (10, 4, [0, 3, 6, 9]),
    # Sections of 4, 3 and 3 steps: the first takes what is left over.
    (10, '2,1,3', [0, 3, 4, 7, 8, 9]),
    (11, '4,4,3', range(11)),
  ],
)
def test_each_section_keeps_its_ends(num_steps, spacing, expected):
  kept = grids.space_timesteps(num_steps, spacing)
  assert kept.dtype == np.int64
  np.testing.assert_array_equal(kept, expected)


def test_a_truncated_grid_ends_at_its_level():
  grid = grids.respaced(schedules.cosine(1000), spacing='100')
  early = grids.truncate(grid, logsnr=0.25)
  assert early[-1] == 0.25 and (np.diff(early) > 0).all()
  np.testing.assert_array_equal(early[:-1], grid[grid < 0.25])
  np.testing.assert_array_equal(grids.truncate(grid, logsnr=np.inf), grid)
  with pytest.raises(ValueError, match='the grid starts at'):
    grids.truncate(grid, logsnr=grid[0])


def test_a_late_grid_begins_at_its_level():
  """The mirror image of `truncate`: together they are the whole grid."""
  grid = grids.respaced(schedules.cosine(1000), spacing='100')
  late = grids.begin(grid, logsnr=0.25)
  assert late[0] == 0.25 and (np.diff(late) > 0).all()
  early = grids.truncate(grid, logsnr=0.25)
  np.testing.assert_array_equal(np.append(early[:-1], late[1:]), grid)
  # A point of the grid is not taken twice.
  np.testing.assert_array_equal(grids.begin(grid, logsnr=grid[7]), grid[7:])
  for noisier in (grid[0], grid[0] - 1, -np.inf):
    np.testing.assert_array_equal(grids.begin(grid, logsnr=noisier), grid)
  assert len(grids.begin(grid, logsnr=grid[-2] + 1)) == 2  # one step to x_0
  with pytest.raises(ValueError, match='the grid ends at 0.25, which'):
    grids.begin(early, logsnr=0.25)


@pytest.mark.parametrize('num_steps', [1, 2, 3, 7, 12, 20])
def test_a_shortened_grid_keeps_the_ends_of_the_grid(num_steps):
  grid = grids.full_grid(schedules.cosine(20))
  short = grids.shorten(grid, num_steps=num_steps)
  assert len(short) == num_steps + 1 and np.all(np.diff(short) > 0)
  assert np.isin(short, grid).all()
  assert (short[0], short[-1]) == (grid[0], np.inf)
  if num_steps > 1:
    assert short[-2] == grid[-2]
    steps = np.flatnonzero(np.isin(grid[:-1], short))
    assert np.ptp(np.diff(steps)) <= 1  # spread evenly
  if num_steps == 20:
    np.testing.assert_array_equal(short, grid)


def test_a_single_step_begins_at_the_noisiest_level():
  """[IDDPM]'s code keeps the cleanest one, at which noise alone is no image."""
  chain = schedules.cosine(100)
  grid = grids.respaced(chain, spacing='1')
  np.testing.assert_array_equal(grid, [chain.logsnr[-1], np.inf])
  np.testing.assert_array_equal(grids.respaced(chain, spacing=1), grid)
  for make in (grids.uniform_t, grids.trailing, grids.rho):
    np.testing.assert_allclose(make(chain, num_steps=1), grid)


def test_uniform_t_interpolates_the_table():
  chain = schedules.cosine(11)
  grid = grids.uniform_t(chain, num_steps=5)
  between = (chain.logsnr[2] + chain.logsnr[3]) / 2  # t = 2.5
  last = (chain.logsnr[7] + chain.logsnr[8]) / 2  # t = 7.5
  expected = [*chain.logsnr[[10]], last, chain.logsnr[5], between]
  np.testing.assert_allclose(grid, [*expected, chain.logsnr[0], np.inf])


def test_trailing_steps_end_one_stride_before_the_cleanest_level():
  """[Lin] tab. 2: of 1,000 steps, ten keep t = 999, 899, ..., 99."""
  chain = schedules.cosine(1000)
  grid = grids.trailing(chain, num_steps=10)
  np.testing.assert_array_equal(
    grid[:-1], chain.logsnr[np.arange(999, 0, -100)]
  )
  every = grids.trailing(chain, num_steps=1000)
  np.testing.assert_array_equal(every, grids.full_grid(chain))


def test_the_grid_of_rho_is_edms():
  notes, stored = oracle('samplers')
  settings = notes['settings']
  grid = grids.rho(
    schedules.cosine(10),
    num_steps=18,
    power=settings['rho'],
    sigma_min=settings['smin'],
    sigma_max=settings['smax'],
  )
  tol = notes['keys']['edm/grid/18']['tol']
  assert_matches(np.exp(-grid / 2), stored['edm/grid/18'], tol)


def test_the_grid_of_rho_ends_where_the_schedule_does():
  chain = schedules.linear(100, beta_min=1e-4, beta_max=0.1)
  grid = grids.rho(chain, num_steps=7, power=3.0)
  np.testing.assert_allclose(grid[[0, -2]], chain.logsnr[[-1, 0]])
  thirds = np.exp(-grid[:-1] / 2) ** (1 / 3)
  np.testing.assert_allclose(np.diff(thirds), np.diff(thirds)[0])


@pytest.mark.parametrize(
  'section, words',
  [
    ({'kind': 'rho', 'num_steps': 4, 'power': 0.0}, 'power is 0.0'),
    ({'kind': 'rho', 'num_steps': 4, 'sigma_max': 1e-9}, 'sigma_max is 1e-09'),
    ({'kind': 'rho', 'num_steps': 0}, 'num_steps is 0'),
    ({'kind': 'trailing', 'num_steps': 101}, 'more than the 100 steps'),
    ({'kind': 'uniform_t', 'num_steps': 0}, 'num_steps is 0'),
    ({'kind': 'levels', 'logsnrs': ()}, 'give one or more log-SNRs'),
    ({'kind': 'levels', 'logsnrs': (1.0, 0.0)}, 'must rise'),
    ({'kind': 'levels', 'logsnrs': (np.inf,)}, 'contains infinity'),
    ({'kind': 'karras', 'num_steps': 4}, 'rho'),
  ],
)
def test_grids_of_a_config_are_refused_by_name(section, words):
  with pytest.raises(ValueError, match=words):
    sampler_section.grid(schedules.cosine(100), section)


@pytest.mark.parametrize(
  'section, expected',
  [
    ({'kind': 'levels', 'logsnrs': (-3.0, 1.0)}, [-3.0, 1.0, np.inf]),
    ({'kind': 'levels', 'logsnrs': [0.5]}, [0.5, np.inf]),
  ],
)
def test_a_config_may_state_the_levels(section, expected):
  grid = sampler_section.grid(schedules.cosine(100), section)
  np.testing.assert_array_equal(grid, expected)
