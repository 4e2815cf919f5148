"""A `method` section becomes the objective that it describes."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from cdm.config import loader, objective_section, stage, stage_warnings
from cdm.diffusion import schedules, weightings
from cdm.diffusion.cosine_logsnr import shifted_cosine
from cdm.diffusion.noise_levels import LogNormal
from cdm.diffusion.preconditioning import Edm
from cdm.models.loss_uncertainty import LossUncertainty

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
SHIFTED = shifted_cosine(1000, image_size=64, noise_size=64)


def objective(schedule=SHIFTED, **section):
  return objective_section.objective(
    {'kind': 'diffusion', 'prediction': 'v', **section}, schedule
  )


def built(name, **overrides):
  pairs = [(k.replace('__', '.'), str(v)) for k, v in overrides.items()]
  return stage.stage(loader.load(CONFIGS / f'{name}.py', pairs))


@pytest.mark.parametrize(
  ('section', 'field', 'expected'),
  [
    ({'prediction': 'v'}, 'prediction', 'v'),
    ({'prediction': 'edm'}, 'prediction', Edm(0.5)),
    ({'prediction': {'kind': 'eps'}}, 'prediction', 'eps'),
    (
      {'prediction': {'kind': 'edm', 'sigma_data': 1.0}},
      'prediction',
      Edm(1.0),
    ),
    ({'levels': 'continuous'}, 'levels', 'continuous'),
    ({'levels': 'log_normal'}, 'levels', LogNormal(-1.2, 1.2)),
    (
      {'levels': {'kind': 'log_normal', 'mean': -0.8}},
      'levels',
      LogNormal(-0.8, 1.2),
    ),
    ({'weighting': 'uncertainty'}, 'uncertainty', LossUncertainty(128)),
    ({'weighting': 'min_snr'}, 'uncertainty', None),
    ({}, 'levels', 'discrete'),
  ],
)
def test_a_word_or_a_section_gives_the_same(section, field, expected):
  assert getattr(objective(**section), field) == expected


def test_a_weighting_is_given_its_options():
  logsnr = jnp.linspace(-4.0, 4.0, 5)
  for section, expected in (
    ({'kind': 'p2', 'gamma': 0.5}, weightings.p2(logsnr, 'v', gamma=0.5)),
    ('edm', weightings.edm(logsnr, 'v')),
  ):
    plain = objective(weighting=section)
    learned = objective(
      weighting={'kind': 'uncertainty', 'base': section, 'features': 4}
    )
    assert plain.uncertainty is None and learned.uncertainty.features == 4
    for found in (plain, learned):
      np.testing.assert_array_equal(found.weighting(logsnr, 'v'), expected)


def test_the_integral_of_vdm_knows_the_levels_that_are_drawn():
  """The density of t is 1 / (-d logsnr / dt), and that of a normal its own."""
  at = jnp.zeros(1)  # t = 1/2, where d logsnr / dt of a cosine is -2 pi
  weight = objective(levels='continuous', weighting='sigmoid_integral')
  found = float(weight.weighting(at, 'eps')[0])
  assert found == pytest.approx(0.5 * 2 * np.pi, rel=1e-3)
  weight = objective(levels='log_normal', weighting='sigmoid_integral')
  normal = 0.5 * 2.4 * np.sqrt(2 * np.pi) * np.exp(0.5)  # ln s = 0 is z = 1
  assert float(weight.weighting(at, 'eps')[0]) == pytest.approx(normal)


@pytest.mark.parametrize(
  ('section', 'words'),
  [
    (
      {'prediction': {'kind': 'edm', 'sigma': 1.0}},
      r'config\.method\.prediction has .sigma.',
    ),
    (
      {'prediction': {'kind': 'edm', 'sigma_data': 0.0}},
      r'config\.method\.prediction\.sigma_data is 0\.0',
    ),
    (
      {'levels': {'kind': 'discrete', 'std': 1.0}},
      r'config\.method\.levels\.std is given, but only .log_normal.',
    ),
    ({'levels': {'kind': 'log_normal', 'std': -1.0}}, r'levels\.std is -1\.0'),
    ({'prediction': 3}, r'config\.method\.prediction is 3'),
    ({'weighting': {'kind': 'p2', 'gamma': -1.0}}, r'weighting\.gamma is -1'),
    ({'weighting': {'kind': 'p2', 'cap': 1.0}}, r'weighting\.cap is not an'),
    (
      {'weighting': {'kind': 'sigmoid_integral', 'log_spread': 1.0}},
      r'weighting\.log_spread is not an option',
    ),
    ({'weighting': 'p3'}, r'weighting\.kind is .p3.; known are .*uncertainty'),
    (
      {'weighting': {'kind': 'uncertainty', 'base': 'uncertainty'}},
      r'weighting\.base is .uncertainty. too',
    ),
    (
      {'weighting': {'kind': 'uncertainty', 'width': 3}},
      r'weighting\.width is not an option',
    ),
    (
      {'weighting': {'kind': 'uncertainty', 'features': 1.5}},
      r'weighting\.features is 1\.5; it must be a whole number',
    ),
    (
      {'weighting': {'kind': 'uncertainty', 'features': 0}},
      r'weighting\.features is 0; use at least 1',
    ),
    (
      {'weighting': 'sigmoid_integral', 'levels': 'piecewise'},
      r"method\.levels is 'piecewise', whose density is not known",
    ),
    (
      {
        'schedule': schedules.cosine(100),
        'weighting': 'sigmoid_integral',
        'levels': 'continuous',
      },
      'a table alone',
    ),
    (
      {'prediction': {'kind': 'edm', 'sigma_data': 1.0}, 'weighting': 'edm'},
      r'weighting\.sigma_data is 0\.5, but .*prediction\.sigma_data is 1',
    ),
  ],
)
def test_a_section_that_cannot_be_is_refused_by_name(section, words):
  with pytest.raises(ValueError, match=words):
    objective(**section)


def test_a_stage_says_what_it_trains_and_counts_its_weight():
  small = {'model__condition_on': 'logsnr', 'method__prediction': 'edm'}
  plain = built('smoke', **small)
  learned = built('smoke', **small, method__weighting='uncertainty')
  assert plain.summary['prediction'] == 'edm (sigma_data=0.5)'
  assert plain.summary['noise levels'] == 'discrete'
  assert set(learned.trace()[0]) - set(plain.trace()[0]) == {'loss_uncertainty'}
  assert learned.trace()[1] == plain.trace()[1]


def test_schedules_take_the_size_of_the_images():
  """2 log(64 / 128) lower than that of 64 pixels."""
  big = built('simple_diffusion_imagenet128').schedule
  plain = shifted_cosine(512, image_size=64, noise_size=64)
  np.testing.assert_allclose(
    big.logsnr, plain.logsnr - 2 * np.log(2), atol=1e-9
  )


def test_levels_that_are_clipped_are_warned_of_with_their_share():
  """ln s from -6.81 to 4.38: of N(0, 2^2), 1.4 % lies above."""
  found = stage_warnings.stage_warnings(
    built('edm_imagenet64', method__levels__mean=0.0, method__levels__std=2.0)
  )
  assert len(found) == 1 and found[0].startswith('1.5% of the noise levels')
  with pytest.raises(ValueError, match=r'method\.levels: \d+% of the levels'):
    built('edm_imagenet64', method__levels__mean=20.0)
