"""A stage's images are scored as they are drawn, as their files would be."""

import json

import numpy as np
import pytest
from evaluation.test_compare_sets import Projection, place  # noqa: F401 (a fixture)
from support import smoke_runs
from support.declared import assert_declared

from cdm.config import evaluated_images
from cdm.evaluation import (
  image_source,
  paired_samples,
  result_line,
  row_types,
)
from cdm.evaluation.image_selection import Selection
from cdm.sampling import upscaler

METRICS = ('psnr', 'psnr_y', 'ssim', 'consistency_1e-5')
COUNT = 5


@pytest.fixture
def stage():
  return smoke_runs.trained() / 'sr'


@pytest.fixture
def evaluate(stage, tmp_path, monkeypatch):
  """-> evaluate(*words): (exit code, row) of `cdm evaluate` of the stage."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  out = tmp_path / 'row.json'

  def run(*words):
    given = (f'--samples={stage}@eval', f'--out={out}', f'--num={COUNT}')
    given += ('--overwrite',)
    code = smoke_runs.cdm('evaluate', *given, *words)
    return code, json.loads(
      out.read_text(encoding='utf-8')
    ) if out.exists() else None

  return run


@pytest.fixture
def one_device():
  with smoke_runs.on(1):
    yield


@pytest.fixture
def drawn(monkeypatch):
  """-> list of the numbers of images drawn, batch by batch."""
  batches, draw = [], upscaler.Upscaler.upscale_rows

  def counted(self, originals, *, keys, label):
    # The last batch is filled up.
    batches.append(sorted({*map(int, keys[:, 1])}))
    return draw(self, originals, keys=keys, label=label)

  monkeypatch.setattr(upscaler.Upscaler, 'upscale_rows', counted)
  return batches


def test_it_equals_the_pictures_that_were_written(stage, evaluate, tmp_path):
  code, row = evaluate('--seed=3')
  assert code == 0
  out = tmp_path / 'pictures'
  words = ('upscale', f'--workdir={stage}', f'--out={out}', '--seed=3')
  assert smoke_runs.cdm(*words, f'--held_out={COUNT}') == 0
  words = [
    *('evaluate', f'--samples={out / "upscaled"}'),
    *(f'--reference={out / "original"}', f'--lowres={out / "lowres"}'),
    *('--downsample=area', f'--out={tmp_path / "written.json"}'),
  ]
  assert smoke_runs.cdm(*words) == 0
  written = json.loads((tmp_path / 'written.json').read_text(encoding='utf-8'))
  same = [row, row['bicubic'], row['intervals'], row['conventions']]
  theirs = [written[k] for k in ('bicubic', 'intervals', 'conventions')]
  for mine, other in zip(same, [written, *theirs], strict=True):
    for name in METRICS:
      assert (name in mine) == (name in other)
      if isinstance(mine.get(name), str):
        assert mine[name] == other[name]
      elif name in mine:
        # Another batch size is another program, which may round otherwise.
        assert mine[name] == pytest.approx(other[name], rel=1e-3)
  assert row['n'] == COUNT and row['lowres_size'] == written['lowres_size']
  assert_declared(written, row_types.PairRow)
  assert_declared(written['bicubic'], row_types.PairMeans)
  assert row['samples_recipe']['seed'] == 3
  (note,) = row['samples_recipe']['stages']
  assert (note['checkpoint'], note['downsample']) == (4, 'area')
  assert note['prepared'].keys() == {'crop', 'filter', 'min_side'}
  line = result_line.line(row)
  assert (
    f'PSNR {row["psnr"]:.2f} (bicubic {row["bicubic"]["psnr"]:.2f})' in line
  )
  assert 'seed 3' in line and '5 images' in line


def test_a_killed_evaluation_draws_what_is_missing(
  evaluate, drawn, one_device, monkeypatch, tmp_path
):
  words = ('--metrics=psnr,ssim', '--batch_per_device=2')
  _, whole = evaluate(*words)
  assert drawn == [[0, 1], [2, 3], [4]]
  kept = list((tmp_path / 'cache').rglob('process-*.jsonl'))
  assert not kept, 'what was kept is to go when the numbers are there'
  drawn.clear()
  score, calls = paired_samples.PairScorer.__call__, []

  def killed(self, *batch):
    calls.append(batch)
    if len(calls) == 2:
      raise KeyboardInterrupt
    score(self, *batch)

  with monkeypatch.context() as patch:
    patch.setattr(paired_samples.PairScorer, '__call__', killed)
    assert evaluate(*words)[0] == 130
  (path,) = (tmp_path / 'cache').rglob('process-*.jsonl')
  with path.open('a', encoding='utf-8') as file:
    file.write('[2, {"psnr": 1')  # torn
  drawn.clear()
  code, row = evaluate(*words)
  assert code == 0 and drawn == [[2, 3], [4]]
  assert row == whole
  drawn.clear()
  evaluate(*words, '--seed=1')  # other images
  assert drawn == [[0, 1], [2, 3], [4]]


def test_sets_and_pairs_are_drawn_once(evaluate, drawn, place):  # noqa: F811
  config = smoke_runs.CONFIGS / 'smoke_sr.py'
  words = [
    *('--metrics=fid,psnr', '--few', f'--weights={place / "w.pth"}'),
    f'--reference={config}:eval',
  ]
  code, row = evaluate(*words)
  assert code == 0 and drawn == [list(range(COUNT))]
  assert {'fid', 'psnr', 'n_reference', 'intervals'} <= row.keys()
  assert {'fid', 'psnr'} <= row['conventions'].keys()
  assert 'ssim' not in row and row['n'] == COUNT
  assert row['psnr'] == evaluate('--metrics=psnr')[1]['psnr']
  assert row['fid'] > 0 and Projection.calls


def test_scores_that_are_missing_where_features_are_not_are_made_up_for(
  stage, drawn, one_device, tmp_path
):
  """A pass for sets alone may have been killed before."""
  scores = paired_samples.PairScorer(keep=tmp_path)
  given = Selection(num=COUNT, seed=0, batch_per_device=2)
  source = paired_samples.resolve_stage(f'{stage}@eval', scores, given)
  for _ in source.batches(1, 7):
    pass
  assert scores.leading() == 0
  paired_samples.draw_missing(source, scores)
  assert scores.leading() == COUNT and scores.row()['n'] == COUNT


def test_an_image_that_the_data_leave_out_has_no_score(
  stage, drawn, one_device, tmp_path, monkeypatch
):
  judged = evaluated_images.open_evaluated

  def without_the_second(saved, count):
    read, stamp = judged(saved, count)
    return lambda n: None if n == 1 else read(n), stamp

  monkeypatch.setattr(evaluated_images, 'open_evaluated', without_the_second)
  scores = paired_samples.PairScorer(keep=tmp_path)
  given = Selection(num=4, seed=0, batch_per_device=2)
  source = paired_samples.resolve_stage(f'{stage}@eval', scores, given)
  paired_samples.draw_missing(source, scores)
  assert drawn == [[0], [2, 3]] and scores.leading() == 4
  row = scores.row()
  assert row['n'] == 3 and np.isfinite(row['psnr'])


def test_lpips_of_what_is_drawn(stage, tmp_path):
  class Perceptual:
    convention = 'mean distance'

    def __call__(self, a, b):
      return float(np.abs(a.astype(float) - b).mean())

  scores = paired_samples.PairScorer(perceptual=Perceptual(), keep=tmp_path)
  given = Selection(num=2, seed=0)
  source = paired_samples.resolve_stage(f'{stage}@eval', scores, given)
  paired_samples.draw_missing(source, scores)
  row = scores.row()
  assert row['lpips'] > 0 and row['bicubic']['lpips'] > 0
  assert row['conventions']['lpips'] == 'mean distance'


@pytest.mark.parametrize(
  'words, message',
  [
    (['--lowres=x'], "its low-res images are made as in the stage's training"),
    (['--reference=x'], '--reference=x is for metrics of sets'),
    (['--metrics=fid,psnr'], '--reference=WHAT is missing'),
    (['--num=9999'], '@eval holds'),
    (['--kid_size=3'], '--kid_size is for metrics of sets'),
  ],
)
def test_what_cannot_be_is_refused(evaluate, capsys, words, message):
  assert evaluate(*words)[0] == 2
  assert message in capsys.readouterr().err


def test_a_cascade_has_no_originals(capsys):
  config = smoke_runs.CONFIGS / 'smoke_cascade.py'
  words = (f'--samples={config}@{smoke_runs.trained()}', '--metrics=psnr')
  assert smoke_runs.cdm('evaluate', *words, '--reference=x') == 2
  assert 'has no originals to be paired with' in capsys.readouterr().err
  with pytest.raises(ValueError, match='not sampled from originals'):
    image_source.resolve(
      f'{config}@x', Selection(num=1), on_batch=lambda *_: None
    )
