"""A run that goes on with another schedule says what its rate becomes."""

import pytest
from ml_collections import ConfigDict

from cdm.training import rate_change


def config(num_steps, **optimizer):
  optimizer = {'kind': 'adam', 'learning_rate': 0.002} | optimizer
  return ConfigDict({'optimizer': optimizer, 'train': {'num_steps': num_steps}})


def test_a_cosine_that_is_lengthened_jumps_and_says_so():
  """The last update of 50 had 0.0986% of the rate; of 100 it has 51.6%."""
  text = rate_change.rate_change(
    config(50, decay='cosine'), config(100, decay='cosine'), 50
  )
  assert text.startswith('learning rate: 0.00000197 at step 50 becomes 0.00103')
  assert "as decay='cosine' now reaches 0 at step 100" in text


def test_a_constant_rate_stays_and_says_so():
  text = rate_change.rate_change(config(50), config(100), 50)
  assert text == 'learning rate: 0.002 at step 50, as before'


@pytest.mark.parametrize(
  ('change', 'text'),
  [
    ({'learning_rate': 0.1}, 'learning rate: 0.002 at step 9 becomes 0.1'),
    ({'warmup_steps': 90}, 'learning rate: 0.002 at step 9 becomes 0.0002'),
    ({}, None),
  ],
)
def test_another_optimizer_is_compared_where_the_run_goes_on(change, text):
  assert rate_change.rate_change(config(50), config(50, **change), 9) == text


def test_a_config_of_an_earlier_cdm_is_no_obstacle():
  before = config(50, beta_one=3)
  assert rate_change.rate_change(before, config(100), 50) is None
  assert rate_change.rate_change(ConfigDict(), config(100), 50) is None
