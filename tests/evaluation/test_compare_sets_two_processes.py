"""Two real processes judge sets of images as one does, killed or not."""

import json
import signal

import numpy as np
import pytest
from support import smoke_runs
from support.linear_features import prepared
from whole.test_two_processes import begin, end, together, training

from cdm.distributed import exit_codes

STAND_IN = """
from support import linear_features
linear_features.stand_in(log={log!r}, kill_at={kill_at}, term_at={term_at})
"""
# Says from which batch on a set is continued, and how many originals of a batch
# this process has.
TELL = """
from cdm.sampling import upscaler
upscale_rows = upscaler.Upscaler.upscale_rows
def counted(self, originals, **given):
  print('holds', len(originals), 'of', self.batch_size, flush=True)
  return upscale_rows(self, originals, **given)
upscaler.Upscaler.upscale_rows = counted
from cdm.evaluation import partial_results
newest = partial_results.PartialResults.newest
def told(parts):
  found = newest(parts)
  print('continued after', found[0], flush=True)
  return found
partial_results.PartialResults.newest = told
"""
ALL = 'fid,sfid,is,kid,pr'


@pytest.fixture
def place(tmp_path, monkeypatch):
  """-> folder with two sets, each as PNGs and as an archive, and weights."""
  return prepared(tmp_path, monkeypatch)


def stand_in(log=None, kill_at=None, term_at=None):
  log = log and str(log)
  return STAND_IN.format(log=log, kill_at=kill_at, term_at=term_at)


def evaluation(place, out, samples='a', metrics=ALL, *more):
  path = place / samples if '@' not in samples else samples
  words = ['evaluate', f'--samples={path}', f'--reference={place / "b.npz"}']
  words += [f'--metrics={metrics}', '--few', f'--weights={place / "w.pth"}']
  if 'kid' in metrics:
    words.append('--kid_size=20')
  return [*words, '--batch_size=4', f'--out={place / out}', *more]


def reference(place, out):
  words = ['evaluate', '--make_reference', f'--reference={place / "b"}']
  return [*words, f'--out={place / out}', f'--weights={place / "w.pth"}']


def sweep(place, out):
  return [
    *(
      'sweep',
      f'--samples={smoke_runs.trained() / "sr"}@eval',
      '--metrics=fid,pr',
    ),
    *(
      f'--reference={smoke_runs.CONFIGS / "smoke_sr.py"}:eval',
      '--num=7',
      '--few',
    ),
    *(f'--weights={place / "w.pth"}', f'--out={place / out}'),
    '--try=sampler.grid.spacing=2,4',
  ]


def paired(place, out):
  """Pairs and sets in one pass."""
  return [
    *('evaluate', f'--samples={smoke_runs.trained() / "sr"}@eval', '--num=7'),
    *(f'--reference={smoke_runs.CONFIGS / "smoke_sr.py"}:eval', '--few'),
    *('--metrics=fid,psnr,ssim', '--batch_size=4'),
    *(f'--weights={place / "w.pth"}', f'--out={place / out}'),
  ]


def robust(place, out):
  """Ten inputs and ten draws in batches of eight: some rows stay empty."""
  return [
    *('robustness', f'--samples={smoke_runs.trained() / "sr"}@eval'),
    *('--num=5', '--draws=2', '--batch_size=8', '--degrade=noise=10'),
    f'--out={place / out}',
  ]


def assert_same_study(mine, expected):
  """All images once, with scores that a grey level may change."""
  for name, key in (('rows', 'cell'), ('draws', 'k')):
    found = [
      {
        (x['record'], x[key]): x
        for x in map(json.loads, path.read_text(encoding='utf-8').splitlines())
      }
      for path in (mine / f'{name}.jsonl', expected / f'{name}.jsonl')
    ]
    assert found[0].keys() == found[1].keys()
    for place, one in found[1].items():
      if name == 'rows':
        assert found[0][place]['bicubic'] == one['bicubic']
        assert_same(
          found[0][place]['ours'], one['ours'], ('psnr', 'ssim'), 1e-2
        )
      else:
        assert_same(found[0][place], one, ('psnr_of_mean',), 1e-2)


def drawn(place, out):
  what = f'{smoke_runs.CONFIGS / "smoke.py"}@{smoke_runs.trained() / "base"}'
  return evaluation(place, out, what, 'fid,is', '--num=11', '--seed=3')


def trained(place, out):
  """A run that computes FID at its last step, the second."""
  return training(
    place / out,
    train__num_steps=2,
    eval__every_steps=0,
    eval__fid_every_steps=2,
    eval__fid_num=300,  # five batches
    eval__fid_weights=place / 'w.pth',
    eval__best='held_out/fid',
  )


def fid_of_run(workdir):
  lines = (workdir / 'scalars.jsonl').read_text(encoding='utf-8').splitlines()
  (found,) = [x for x in map(json.loads, lines) if 'held_out/fid' in x]
  assert found['step'] == 2
  best = json.loads(
    (workdir / 'checkpoints' / 'best').read_text(encoding='utf-8')
  )
  assert best == {
    'step': 2,
    'metric': 'held_out/fid',
    'value': found['held_out/fid'],
  }
  return found


def row(path):
  return json.loads(path.read_text(encoding='utf-8'))


def assert_same(mine, expected, names, rel):
  for name in names:
    assert mine[name] == pytest.approx(expected[name], rel=rel), name


def test_they_judge_as_one_does(place):
  every = (
    evaluation(place, 'one/row.json'),
    reference(place, 'one/b.npz'),
    drawn(place, 'one/drawn.json'),
    sweep(place, 'one/sweep'),
    paired(place, 'one/paired.json'),
    robust(place, 'one/study'),
    trained(place, 'one/run'),
  )
  for words in every:
    assert smoke_runs.cdm(*words) == 0
  # The run of two is preempted while it draws, and goes on below.
  halted = [str(w).replace('/one/', '/two/') for w in every[-1]]
  running = begin(halted, both=stand_in(), before=stand_in(term_at=2))
  end(running, *[exit_codes.PREEMPTED.code] * 2)
  partial = place / 'two' / 'run' / 'partial_fid'
  kept = sorted(path.name for path in partial.rglob('*.npz'))
  assert len({name[: len('process-0')] for name in kept}) == 2
  done = max(int(name.split('-')[-1][: -len('.npz')]) for name in kept)
  assert 1 <= done < 5
  # As of a sweep that process 0 alone can see a part of.
  (place / 'two' / 'sweep').mkdir(parents=True)
  lines = (
    (place / 'one' / 'sweep' / 'rows.jsonl')
    .read_text(encoding='utf-8')
    .splitlines(True)
  )
  (place / 'two' / 'sweep' / 'rows.jsonl').write_text(
    lines[0] + '{"torn', encoding='utf-8'
  )
  hide = """
import jax
from cdm.reporting import jsonl
read = jsonl.read
jsonl.read = lambda *a: [] if jax.process_index() else read(*a)
"""
  first, second = together(
    *([str(w).replace('/one/', '/two/') for w in words] for words in every),
    [str(w).replace('/one/', '/whole/') for w in every[-1]],
    both=stand_in() + hide + TELL,
  )
  assert first.count(f'continued after {done}\n') == 1
  assert not partial.exists()
  assert 'holds 4 of 8\n' in first and 'holds 8' not in first
  mine, expected = (fid_of_run(place / x / 'run') for x in ('two', 'whole'))
  assert mine['held_out/fid'] == expected['held_out/fid']
  assert 'Statistics of 30 images' in first and 'fid' not in second
  assert 'spacing=4 ...' in first and 'spacing=2 ...' not in first
  mine, expected = (row(place / x / 'row.json') for x in ('two', 'one'))
  names = ('fid', 'sfid', 'is', 'is_std', 'kid', 'precision', 'recall')
  assert_same(mine, expected, (*names, 'n', 'n_reference'), 1e-9)
  with (
    np.load(place / 'two' / 'b.npz') as mine,
    np.load(place / 'one' / 'b.npz') as expected,
  ):
    for name in ('mu', 'sigma', 'mu_s', 'sigma_s', 'count'):
      np.testing.assert_allclose(mine[name], expected[name], atol=1e-12)
    assert str(mine['recipe']) == str(expected['recipe'])
  # A mesh of two is another program: a grey level may differ.
  mine, expected = (row(place / x / 'drawn.json') for x in ('two', 'one'))
  assert_same(mine, expected, ('n', 'fid', 'is'), 1e-2)
  mine, expected = (row(place / x / 'paired.json') for x in ('two', 'one'))
  assert_same(mine, expected, ('n', 'fid', 'psnr', 'ssim'), 1e-2)
  mine, expected = (fid_of_run(place / x / 'run') for x in ('two', 'one'))
  assert_same(mine, expected, ('held_out/fid',), 1e-2)
  mine, expected = (row(place / x / 'paired.json') for x in ('two', 'one'))
  ends = [found['intervals']['psnr'] for found in (mine, expected)]
  np.testing.assert_allclose(*ends, rtol=1e-2)
  rows = [
    [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
    for path in (place / x / 'sweep' / 'rows.jsonl' for x in ('two', 'one'))
  ]
  for mine, expected in zip(*rows, strict=True):
    assert (mine['n'], mine['setting']) == (7, expected['setting'])
    assert_same(mine, expected, ('fid',), 1e-2)
  assert_same_study(place / 'two' / 'study', place / 'one' / 'study')
  # The statistics of a reference of training are kept, and nothing else.
  (kept,) = (place / 'cache').rglob('*.npz')
  assert kept.name.startswith('reference-')
  assert not list((place / 'cache').rglob('*.jsonl'))


def test_killed_they_go_on_and_give_the_same(place):
  assert smoke_runs.cdm(*evaluation(place, 'one.json')) == 0
  words = evaluation(place, 'two.json')
  running = begin(
    words,
    both=stand_in(log=place / 'killed'),
    before=stand_in(kill_at=3),
  )
  end(running, exit_codes.LOST_PEERS.code, -signal.SIGKILL)
  assert not (place / 'two.json').exists()
  kept = {path.name for path in (place / 'cache').rglob('process-*.npz')}
  assert {name[: len('process-0')] for name in kept} == {
    'process-0',
    'process-1',
  }
  together(words, both=stand_in(log=place / 'again'))
  # Of 4 batches of the samples one at least was done by both.
  for rank in range(2):
    lines = (place / f'again-{rank}').read_text(encoding='utf-8').splitlines()
    assert 4 + 2 <= len(lines) <= 4 + 3
  mine, expected = (row(place / name) for name in ('two.json', 'one.json'))
  names = ('fid', 'sfid', 'is', 'kid', 'precision', 'recall', 'n')
  assert_same(mine, expected, names, 1e-9)
  assert not list((place / 'cache').rglob('*.npz'))
