"""The plot of a sweep: quality against what an image costs."""

import re

import pytest

from cdm.evaluation import quality_plot


def row(fid, cost, **setting):
  return {
    'setting': [[key.replace('__', '.'), v] for key, v in setting.items()],
    'fid': fid,
    'n': 100,
    'samples': 'runs/sr@eval',
    'reference': 'reference.npz',
    'cost': cost,
  }


def one(evaluations):
  return [{'name': 'sr', 'evaluations': evaluations, 'flops': 10**9}]


def two(base, sr, flops=2e9):
  return [
    {'name': 'base', 'evaluations': base, 'flops': flops},
    {'name': 'sr', 'evaluations': sr, 'flops': 3 * flops},
  ]


SAMPLERS = [
  row(9.0, one(4), sampler='ddim', steps='4'),
  row(4.0, one(8), sampler='ddim', steps='8'),
  row(8.0, one(7), sampler='heun', steps='4'),
  row(2.0, one(15), sampler='heun', steps='8'),
]


def test_a_line_joins_settings_of_one_sampler_by_their_evaluations():
  assert quality_plot.series(SAMPLERS, 'fid') == {
    'ddim': [(4, 9.0), (8, 4.0)],
    'heun': [(7, 8.0), (15, 2.0)],
  }


def test_other_keys_that_vary_name_the_line():
  rows = [
    row(1.0, one(8), sampler__grid__spacing='8', sampler__eta=eta, level=level)
    for eta in ('0', '1')
    for level in ('0', '0.1')
  ]
  assert list(quality_plot.series(rows, 'fid')) == [
    'sampler.eta=0, level=0',
    'sampler.eta=0, level=0.1',
    'sampler.eta=1, level=0',
    'sampler.eta=1, level=0.1',
  ]
  alone = [row(1.0, one(n), steps=str(n)) for n in (8, 4)]
  assert quality_plot.series(alone, 'fid') == {
    'all settings': [(4, 1.0), (8, 1.0)]
  }


def test_a_cascade_costs_the_flops_of_all_its_stages():
  rows = [row(3.0, two(4, 2), steps='4')]
  assert quality_plot.series(rows, 'fid') == {'all settings': [(8.0, 3.0)]}
  assert quality_plot.evaluations_text(two(4, 2)) == 'base 4, sr 2'
  page = quality_plot.page(rows, 'fid', 0)
  assert 'GFLOPs per image' in page and 'network evaluations per' not in page


def test_the_page_shows_every_setting_and_rings_the_best():
  page = quality_plot.page(SAMPLERS, 'fid', 3)
  assert page.count('<circle class="end"') >= 4
  dots = re.findall(r'class="mark" cx="([\d.]+)" cy="([\d.]+)"', page)
  [ring] = dots
  assert f'cx="{ring[0]}" cy="{ring[1]}" r="3"' in page  # it is on a dot
  assert 'lower is better' in page and 'network evaluations per image' in page


@pytest.mark.parametrize('known', [0, 2])
def test_rows_of_earlier_versions_have_no_place(known):
  rows = [dict(r) for r in SAMPLERS]
  for r in rows[known:]:
    del r['cost']
  page = quality_plot.page(rows, 'fid', 3)
  assert (page is None) == (known == 0)
  if page is not None:
    assert 'class="mark"' not in page and '>heun<' not in page
