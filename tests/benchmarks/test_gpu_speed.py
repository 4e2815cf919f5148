"""Speed jobs find the batch that fits, and leave out what takes too long."""

import types

import jax
import numpy as np
import pytest

from benchmarks.gpu import sampling_speed, step_variants

GIB = 2**30


@pytest.mark.parametrize(
  ('limit_gib', 'batch'),
  [
    (80, 632),  # (0.92 * 80 - 10) / 0.1 = 636, in eights
    (11, 1),  # 10.12 GiB hold one image of 0.1
    (1000, step_variants.MOST_BATCH),
  ],
)
def test_the_batch_follows_from_two_counts(monkeypatch, limit_gib, batch):
  """10 GiB whatever the batch is, and a tenth of one for every image."""
  monkeypatch.setattr(step_variants, 'config', lambda args, words, n: n)
  monkeypatch.setattr(
    step_variants, 'needed_bytes', lambda n: 10 * GIB + n * GIB // 10
  )
  args = types.SimpleNamespace(model='m', memory_gib=limit_gib, smoke=False)
  found, figures = step_variants.largest_batch(args, [])
  assert found == batch
  assert figures['bytes_per_image'] == GIB // 10
  assert abs(figures['fixed_bytes'] - 10 * GIB) < 100


def test_a_model_that_does_not_fit_is_refused(monkeypatch):
  monkeypatch.setattr(step_variants, 'config', lambda args, words, n: n)
  monkeypatch.setattr(step_variants, 'needed_bytes', lambda n: (10 + n) * GIB)
  args = types.SimpleNamespace(model='m', memory_gib=8, smoke=False)
  with pytest.raises(SystemExit, match='for one image, above 0.92'):
    step_variants.largest_batch(args, [])


def test_a_program_is_timed_without_its_first_call():
  calls = []
  spent = sampling_speed.median_seconds(lambda: calls.append(1), np.inf)
  assert len(calls) == 1 + sampling_speed.ROUNDS
  assert spent.fastest <= spent.median <= spent.slowest


class Recorded:
  """In the place of `result_rows.Rows`."""

  def __init__(self):
    self.rows = []

  def add(self, **figures):
    self.rows.append(figures)


def test_the_share_outside_the_network_is_what_the_loop_costs_more(
  monkeypatch,
):
  """A network of 1 s and a loop of N + 0.5 s; 20 s are the most of a call."""
  seconds = {}

  def timed(call, end):
    value = call()
    return sampling_speed.Spent(9.0, value, value, value)

  def programs(built, batch):
    def loop(params, tuned):
      seconds[tuned] = tuned + 0.5
      return seconds[tuned]

    return lambda params: 1.0, loop, ()

  def built_stage(model, steps=50):
    method = types.SimpleNamespace(tune=lambda stop: steps)
    net = types.SimpleNamespace(dtype='float32')
    return types.SimpleNamespace(
      method=method, net=net, input_size=8, lowres=None
    )

  for name, value in (
    ('median_seconds', timed),
    ('programs', programs),
    ('built_stage', built_stage),
    ('random_parameters', lambda built: None),
    ('share_of_peak', lambda work: work / 1e12),
  ):
    monkeypatch.setattr(sampling_speed, name, value)
  monkeypatch.setattr(sampling_speed.flops, 'trace', lambda *_: (None, 3e12))
  rows = Recorded()
  model = sampling_speed.Model('any', 2)
  args = types.SimpleNamespace(smoke=False, most_seconds=20.0)
  sampling_speed.measure('any', model, 2, args, rows, np.inf)
  assert [row['steps'] for row in rows.rows] == list(sampling_speed.STEPS)
  assert list(seconds) == [4, 1, 8]  # 50 and 256 s are too long
  by_steps = {row['steps']: row for row in rows.rows}
  assert by_steps[256] == dict(
    model='any', batch=2, steps=256, left_out_seconds=256.0
  )
  assert by_steps[1]['outside_fraction'] == pytest.approx(1 / 3)
  assert by_steps[4]['images_per_second'] == pytest.approx(2 / 4.5)
  assert by_steps[8]['mfu'] == pytest.approx(3 * 2 * 8 / 8.5)


def test_one_program_serves_all_numbers_of_steps():
  """A compilation for each would take most of ten minutes on a GPU."""
  model = sampling_speed.SMOKE_MODELS['smoke_sr']
  shapes = [
    jax.tree.map(
      np.shape, sampling_speed.built_stage(model, steps).method.tune(None)
    )
    for steps in sampling_speed.STEPS
  ]
  assert all(shape == shapes[0] for shape in shapes)
  counts = [
    int(sampling_speed.built_stage(model, n).method.tune(None).steps.count)
    for n in sampling_speed.STEPS
  ]
  assert counts == list(sampling_speed.STEPS)
