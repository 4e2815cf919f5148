"""A run whose held-out loss rises while its training loss falls is named."""

import pytest

from cdm.training import overfitting


def record(held_out, training):
  """Evaluations every 100 steps, and log lines every 50."""
  rows = []
  for i, (value, loss) in enumerate(zip(held_out, training, strict=True)):
    step = 100 * (i + 1)
    rows += [
      {'step': step - 50, 'loss': loss + 0.01},
      {'step': step, 'loss': loss - 0.01},
      {'step': step, 'held_out/loss': 9.0, 'held_out/ema_loss': value},
    ]
  return rows


FALLS = [0.9, 0.8, 0.7, 0.6, 0.5]


def test_the_sentence_names_the_steps_and_the_losses():
  rows = record([0.5, 0.4, 0.45, 0.5, 0.55], FALLS)
  assert overfitting.warning('base', rows) == (
    'base overfits: the held-out loss of its EMA has risen in the last 3 '
    'evaluations, from 0.4000 at step 200 to 0.5500 at step 500, while the '
    'training loss fell from 0.8000 to 0.5000. The held-out loss was lowest at '
    'step 200.'
  )


@pytest.mark.parametrize(
  ('held_out', 'training'),
  [
    ([0.5, 0.6, 0.4, 0.45, 0.5], FALLS),  # two rises
    ([0.4, 0.5, 0.6, 0.7, 0.69], FALLS),  # the last evaluation was better
    ([0.4, 0.4, 0.4, 0.4, 0.4], FALLS),
    ([0.4, 0.5, 0.6, 0.7, 0.8], FALLS[::-1]),  # both rise: it diverges
    ([0.4, None, float('nan'), 0.5, 0.6], FALLS),
    ([], []),
  ],
)
def test_other_records_are_not_called_overfitting(held_out, training):
  assert overfitting.warning('base', record(held_out, training)) is None
