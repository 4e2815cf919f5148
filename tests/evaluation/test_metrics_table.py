"""A contributor adds a metric: one file, one line, and it comes out everywhere.

The "file" is this one, the "line" the fixture.
"""

import argparse
import json
import types

import numpy as np
import pytest
from PIL import Image

from cdm.cli import main
from cdm.cli.commands import robustness as robustness_command
from cdm.evaluation import (
  feature_statistics,
  metrics_table,
  result_line,
  set_metrics,
  sweep,
)
from cdm.evaluation.metrics.measure import PairMeasure, SetMeasure
from cdm.evaluation.metrics_table import PairMetric, SetMetric
from cdm.evaluation.robustness import aggregate, scoring, study
from cdm.evaluation.robustness.conditions import CLEAN, Condition
from cdm.reporting.shown_number import ShownNumber

TOY = PairMeasure(
  lambda pair: float(np.abs(pair.sample.astype(int) - pair.reference).mean()),
  'mean absolute difference',
)
TOY_OF_SETS = SetMeasure(
  lambda samples, reference, size: {
    'gap': float(samples.mean() - reference.mean())
  },
  'difference of the means, not of subsets of {size}',
)


@pytest.fixture(autouse=True)
def added(monkeypatch):
  shown = ShownNumber('Toy error', 'levels', '.1f', higher_is_better=False)
  monkeypatch.setitem(
    metrics_table.PAIRS, 'toy', PairMetric(shown, f'{__name__}:TOY')
  )
  monkeypatch.setitem(
    metrics_table.SETS,
    'gap',
    SetMetric(
      {'gap': ShownNumber('Toy gap', form='.3f', higher_is_better=False)},
      f'{__name__}:TOY_OF_SETS',
      takes='features',
    ),
  )


def write(folder, level):
  folder.mkdir()
  for i in range(3):
    image = np.full((16, 16, 3), level + i, np.uint8)
    Image.fromarray(image).save(folder / f'{i}.png')
  return folder


def test_it_is_in_the_row_and_the_line_of_evaluate(tmp_path, capsys):
  sets = write(tmp_path / 'a', 10), write(tmp_path / 'b', 14)
  words = [f'--samples={sets[0]}', f'--reference={sets[1]}']
  for metrics in ([], ['--metrics=toy']):
    out = f'--out={tmp_path / "row.json"}'
    assert main.main(['evaluate', *words, *metrics, out, '--overwrite']) == 0
    row = json.loads(capsys.readouterr().out)
    assert row['toy'] == 4.0 and row['counts']['toy'] == 3
    assert row['conventions']['toy'] == 'mean absolute difference'
    assert row['intervals']['toy'] == [4.0, 4.0]
    assert ('psnr' in row) == (not metrics)
    assert '**Toy error 4.0 (95%: 4.0 to 4.0)**' in (
      tmp_path / 'row.md'
    ).read_text(encoding='utf-8')


def test_a_metric_of_sets_is_in_the_row_and_decides_a_sweep():
  def gathered(level):
    return feature_statistics.Gathered(
      3, features=(np.full((3, 2), level),), numbers=(np.arange(3),)
    )

  found = set_metrics.compare(gathered(5), gathered(3), metrics=['gap'])
  assert found.scores == {'gap': 2.0}
  assert 'subsets of 1000' in found.conventions['gap']
  row = {'n': 3, 'samples': 'x', **found.scores}
  assert '**Toy gap 2.000**' in result_line.line(row)
  assert sweep.choose([{'gap': 2.0}, {'gap': 1.0}], 'gap') == 1


@pytest.mark.parametrize('command', ['evaluate', 'robustness', 'sweep'])
def test_it_is_in_the_help(command, capsys):
  with pytest.raises(SystemExit):
    main.main([command, '--help'])
  shown = ' '.join(capsys.readouterr().out.split())
  assert 'gap Toy gap; lower is better' in shown
  assert ('toy Toy error, levels; lower is better' in shown) == (
    command != 'sweep'
  )


def test_it_is_in_a_study_of_robustness():
  parser = argparse.ArgumentParser()
  robustness_command.arguments(parser)
  words = ['--samples=x', '--out=y', '--metrics=toy,psnr,gap']
  metrics = robustness_command.check(parser.parse_args(words))
  assert metrics == ['toy', 'psnr', 'gap']
  examination = object.__new__(scoring.Examination)
  lowres = types.SimpleNamespace(downsample='area')
  upscale = types.SimpleNamespace(lowres=lowres)
  examination.opened = types.SimpleNamespace(upscale=upscale)
  examination._metrics, examination._perceptual = ['toy', 'psnr'], None

  def scores(level):
    images = [np.full((8, 8, 3), x, np.uint8) for x in (level, 100, 5)]
    return examination._scores(Condition(CLEAN), *images)

  # Ours is 10 levels off on clean inputs and 30 on noisy ones, bicubic 20.
  rows, twenty = {}, scores(80)
  for cell, level in ((CLEAN, 90), ('noise-5', 70)):
    for n in range(2):
      rows[n, cell] = {'ours': scores(level), 'bicubic': twenty}
  results = aggregate.collect(
    rows,
    {},
    records=[0, 1],
    chosen={'noise': [5.0]},
    metrics=metrics,
    divisions={},
    draws=0,
    sets={(c, m): {'gap': 1.5} for c in (CLEAN, 'noise-5') for m in ('ours',)},
  )
  assert results['clean']['toy']['ours']['mean'] == 10.0
  (kind,) = results['degradations']
  assert kind['fall']['ours']['mean'] == 20.0  # a higher error is a loss
  assert kind['curves']['gap']['ours'][1]['mean'] == 1.5
  assert 'Toy error, levels: ours 10.0 [10.0, 10.0], bicubic 20.0' in (
    study.text(results)
  )


def test_every_metric_of_the_table_has_code_and_a_convention():
  for name, metric in metrics_table.PAIRS.items():
    if metric.needs != 'perceptual':
      assert metric.measure.describe('bicubic'), name
  for name, metric in metrics_table.SETS.items():
    assert metric.measure.convention, name
