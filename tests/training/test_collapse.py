"""A GAN whose game is over is named, once, with what to do."""

import pytest

from cdm.training import collapse

GOOD = {
  'discriminator_accuracy': 0.8,
  'spread_generated': 0.9,
  'spread_original': 1.0,
}


def record(lines, **last):
  """-> log lines every 100 steps, of which the last ones have other scalars."""
  rows = [{'step': 50, 'held_out/loss': 1.0}]
  for i in range(12):
    changed = last if i >= 12 - lines else {}
    rows.append({'step': 100 * (i + 1), **GOOD, **changed})
  return rows


def test_images_that_are_all_alike_are_a_collapse():
  """2% of the variance is 14% of the standard deviation."""
  rows = record(10, spread_generated=0.02)
  assert collapse.warning('gan', rows) == (
    'gan has collapsed: in the last 10 log lines, of steps 300 to 1,200, the '
    'images of the generator differed from each other by at most 14% of what '
    'their originals do. Start again from an earlier checkpoint, with a lower '
    'optimizer.learning_rate or a larger method.r1_weight.'
  )


def test_a_discriminator_that_has_won_is_named():
  rows = record(10, discriminator_accuracy=0.996)
  assert collapse.warning('gan', rows) == (
    'The discriminator of gan has won: in the last 10 log lines, of steps 300 '
    'to 1,200, it told at least 99.6% of the images from their originals, so '
    'that the generator learns little from it. Give it a larger '
    'method.r1_weight, or a lower rate: '
    "optimizer.group_rates=(('^discriminator', 0.5),)."
  )


@pytest.mark.parametrize(
  ('lines', 'last'),
  [
    (0, {}),
    (9, {'spread_generated': 0.02}),  # not for long enough
    (9, {'discriminator_accuracy': 1.0}),
    (10, {'spread_generated': 0.1}),  # 32% of the standard deviation
    # One image on a device: no spread is known.
    (12, {'spread_generated': 0.0, 'spread_original': 0.0}),
    (12, {'discriminator_accuracy': None}),  # a run without a discriminator
  ],
)
def test_other_records_are_no_collapse(lines, last):
  assert collapse.warning('gan', record(lines, **last)) is None


def test_it_is_said_once_until_the_run_recovers():
  said = []
  watch = collapse.Watch('gan', said.append)
  bad = GOOD | {'spread_generated': 0.0}
  for step in range(1, 16):
    watch.add(step, bad)
  assert len(said) == 1 and said[0].startswith('warning: gan has collapsed')
  assert 'of steps 1 to 10' in said[0]
  watch.add(16, GOOD)
  for step in range(17, 27):
    watch.add(step, bad)
  assert len(said) == 2


def test_lines_that_a_rollback_undoes_do_not_count():
  said = []
  watch = collapse.Watch('gan', said.append)
  bad = GOOD | {'spread_generated': 0.0}
  for step in (*range(1, 10), *range(5, 10)):
    watch.add(step, bad)
  assert not said
  watch.add(10, bad)
  assert len(said) == 1


def test_a_run_of_another_method_is_not_watched():
  watch = collapse.Watch('base', pytest.fail)
  for step in range(20):
    watch.add(step, {'loss': 0.0})
