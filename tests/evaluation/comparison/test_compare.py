"""`cdm compare` through the front door, with a stage and images of others."""

import json
import re

import pytest
from support import smoke_runs

NUM = 6


@pytest.fixture(scope='module')
def stage():
  return smoke_runs.trained() / 'sr'


@pytest.fixture(scope='module')
def compared(stage, tmp_path_factory):
  """-> (output folder, content of comparison.json)."""
  out = tmp_path_factory.mktemp('compare') / 'out'
  words = *('compare', f'--out={out}', f'--num={NUM}'), '--shown=2'
  alone = *words, f'--methods=sr={stage}', '--extreme=1', '--draws=2'
  assert smoke_runs.cdm(*alone) == 0
  theirs = out.parent / 'theirs'
  theirs.mkdir()
  for n in range(NUM):  # 8.png, 9.png, 10.png, ...: numbers, not text
    source = out / 'images' / 'sr' / 'bicubic' / f'{n:06d}.png'
    (theirs / f'{n + 8}.png').write_bytes(source.read_bytes())
  both = f'--methods=bicubic,theirs={theirs},sr={stage}'
  assert smoke_runs.cdm(*alone[:-3], both, *alone[-2:]) == 0
  text = (out / 'comparison.json').read_text(encoding='utf-8')
  return out, json.loads(text)


def row(compared, name):
  return next(r for r in compared[1]['rows'] if r['method'] == name)


def test_scores_are_those_of_cdm_evaluate(stage, compared, capsys):
  words = f'--samples={stage}@eval', '--metrics=psnr,ssim,consistency'
  assert smoke_runs.cdm('evaluate', *words, f'--num={NUM}') == 0
  expected = json.loads(capsys.readouterr().out.splitlines()[-1])
  ours = row(compared, 'sr')['scores']
  for name in ('psnr', 'ssim', 'consistency'):
    assert ours[name] == pytest.approx(expected[name], rel=1e-3)
    bicubic = row(compared, 'bicubic')['scores'][name]
    assert bicubic == pytest.approx(expected['bicubic'][name], rel=1e-3)


def test_images_of_others_are_taken_in_the_order_of_their_numbers(compared):
  assert row(compared, 'theirs')['scores'] == row(compared, 'bicubic')['scores']


def test_costs_are_those_of_the_run(compared):
  sr = row(compared, 'sr')
  assert sr['cost']['steps'] == sr['checkpoint'] > 0
  assert sr['cost']['images'] == 8 * sr['checkpoint']
  assert sr['cost']['parameters'] > 0 and sr['cost']['seconds'] > 0
  assert sr['is_drawn'] and not row(compared, 'bicubic')['is_drawn']
  assert sr['seconds_per_image'] > 0
  assert 'seconds_per_image' not in row(compared, 'theirs')


def test_the_page_shows_every_method_and_is_one_file(compared):
  out, result = compared
  page = (out / 'comparison.html').read_text(encoding='utf-8')
  shown = [image['number'] for image in result['shown']]
  assert shown[:2] == [0, 1] and len(set(shown)) == 4
  # low-res, three methods, original; and two samples of the one that draws.
  assert page.count('<img') == 4 * (5 + 2)
  assert page.count('type="checkbox"') == page.count('<img')
  assert not re.search(r'(src|href)="(?!data:)', page)
  assert '<script' not in page
  assert 'worst 1 by the consistency of sr' in page


def test_the_table_is_what_the_command_prints(compared):
  text = (compared[0] / 'comparison.md').read_text(encoding='utf-8')
  lines = text.splitlines()
  assert [line.split(' | ')[0] for line in lines[2:]] == [
    *('| bicubic', '| theirs', '| sr')
  ]


@pytest.mark.parametrize(
  'words, message',
  [
    (['--size=32'], '--size=32, but .* is of 8 -> 16 pixels'),
    (['--low-res=4'], '--low_res=4, but'),
    (['--draws=0'], '--draws=0: it must be at least 1'),
    (['--shown=0', '--extreme=0'], 'leave the page without an image'),
    (['--config.seed=1'], 'changes the config of --config=FILE'),
  ],
)
def test_what_cannot_be_meant_is_refused(
  stage, tmp_path, words, message, capsys
):
  out = tmp_path / 'out'
  words = f'--methods=sr={stage}', f'--out={out}', *words
  assert smoke_runs.cdm('compare', *words) == 2
  assert re.search(message, capsys.readouterr().err)
  assert not out.exists()


def test_methods_of_other_tasks_are_refused(stage, tmp_path, capsys):
  words = f'--methods=sr={stage}', f'--out={tmp_path / "out"}'
  config = smoke_runs.CONFIGS / 'photos8to32.py'
  assert smoke_runs.cdm('compare', *words, f'--config={config}') == 2
  error = capsys.readouterr().err
  assert 'makes images of 16 pixels of 8' in error
  assert 'the comparison is of 8 -> 32' in error
