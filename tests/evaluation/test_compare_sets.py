"""Sets of images are judged the same however they are named, cut or killed.

Inception is replaced by a projection of the pixels, see `judged`. One test has
it whole.
"""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image
from support import published_weights, smoke_runs
from support.declared import assert_declared
from support.linear_features import (
  COUNT,
  SIDE,
  Projection,
  compare,
  features,
  judge,
  pictures,
  prepared,
)
from support.oracles import assert_matches, oracle, rule_weights

from cdm.data import folder, prepare
from cdm.distributed import exit_codes
from cdm.evaluation import (
  compare_sets,
  extract_features,
  feature_networks,
  image_source,
  partial_results,
  reference_statistics,
  result_line,
  row_types,
  sweep,
)
from cdm.evaluation.feature_extractor import Extractor
from cdm.evaluation.image_selection import Selection
from cdm.evaluation.metrics.fid import fid
from cdm.evaluation.metrics.kid import kid

OF_B = 'reference_config.train_data.path'


@pytest.fixture
def place(tmp_path, monkeypatch):
  """-> folder with two sets, each as PNGs and as an archive, and weights."""
  return prepared(tmp_path, monkeypatch)


def test_numbers_are_those_of_the_features(place):
  row = judge(place, metrics=('fid', 'sfid', 'is', 'kid', 'pr'), kid_size=20)
  a, b = features('a', place).pool, features('b', place).pool
  expected = fid(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
  assert row['fid'] == pytest.approx(expected, rel=1e-4)
  assert row['kid'] == pytest.approx(kid(a, b, size=20)[0], rel=1e-5)
  assert row['is'] > 1 and 0 <= row['precision'] <= 1 and row['sfid'] > 0
  assert (row['n'], row['n_reference']) == (COUNT, COUNT)
  assert_declared(row, row_types.SetRow)
  assert_declared(row['samples_recipe'], row_types.ImageManifest)
  assert set(row['conventions']) == {'fid', 'sfid', 'is', 'kid', 'pr'}
  assert json.loads(json.dumps(row, allow_nan=False))['fid'] == row['fid']


def test_a_folder_and_an_archive_give_the_same(place):
  folder, archive = judge(place), judge(place, 'a.npz', 'b.npz')
  for name in ('fid', 'is', 'is_std', 'n'):
    assert folder[name] == pytest.approx(archive[name], rel=1e-9)


def test_shards_are_judged_in_place_like_their_images(place):
  pytest.importorskip('array_record')
  source = folder.Folder(place / 'a', class_names=())
  prepare.prepare(source, size=SIDE, out=place / 's', records_per_shard=8)
  images, shards = judge(place), judge(place, 's', 'b')
  for name in ('fid', 'is', 'is_std', 'n'):
    assert shards[name] == images[name]
  assert shards['samples_recipe']['suffixes'] == ['.array_record']


def test_the_size_of_batches_changes_nothing(place):
  every = [
    judge(place, metrics=('fid', 'is', 'kid', 'pr'), kid_size=20, batch_size=n)
    for n in (4, 30)
  ]
  for name in ('fid', 'is', 'kid', 'precision', 'recall'):
    assert every[0][name] == pytest.approx(every[1][name], rel=1e-6)


def test_a_killed_evaluation_continues_and_gives_the_same(place, monkeypatch):
  whole = judge(place, metrics=('fid', 'kid'), kid_size=20, batch_size=7)
  monkeypatch.setattr(extract_features, 'SAVE_SECONDS', 0.0)
  Projection.calls, Projection.fail_at = 0, 4
  with pytest.raises(KeyboardInterrupt):
    judge(place, metrics=('fid', 'kid'), kid_size=20, batch_size=7)
  kept = list((place / 'cache').rglob('*.npz'))
  assert len(kept) == 2
  Projection.calls, Projection.fail_at = 0, None
  row = judge(place, metrics=('fid', 'kid'), kid_size=20, batch_size=7)
  assert Projection.calls == 3 + 5  # of five batches two were done
  assert (row['fid'], row['kid']) == (whole['fid'], whole['kid'])
  assert not list((place / 'cache').rglob('*.npz'))


def test_the_bar_counts_the_images_of_padded_batches(place, monkeypatch):
  """A cascade pads a batch of 3 images to 4, a multiple of its devices."""
  moves = []
  move_to = extract_features.progress.Progress.move_to

  def moved(self, done, *rest):
    moves.append(done)
    move_to(self, done, *rest)

  monkeypatch.setattr(extract_features.progress.Progress, 'move_to', moved)

  def batches(first, size):
    for start in range(first * 4, 10, 4):
      numbers = np.arange(start, min(start + 4, 10))
      yield numbers, np.zeros((len(numbers), 8, 8, 3), np.uint8)

  source = image_source.Source(10, batches, {'drawn': 'x'}, {}, None, 4)
  gatherer = extract_features.Gatherer(place / 'w.pth', batch_size=3)
  assert gatherer(source, ('fid',), 'samples').count == 10
  assert moves == [4, 8, 10]


def test_a_set_that_is_done_is_not_gathered_again_after_a_kill(
  place, monkeypatch
):
  monkeypatch.setattr(extract_features, 'SAVE_SECONDS', 0.0)
  Projection.fail_at = 7  # of the samples' five batches all are done
  with pytest.raises(KeyboardInterrupt):
    judge(place, metrics=('fid',), batch_size=7)
  Projection.calls, Projection.fail_at = 0, None
  judge(place, metrics=('fid',), batch_size=7)
  assert Projection.calls == 5
  assert not list((place / 'cache').rglob('*.npz'))


def test_pictures_drawn_anew_are_not_gone_on_with(place, monkeypatch):
  monkeypatch.setattr(extract_features, 'SAVE_SECONDS', 0.0)
  Projection.fail_at = 4
  with pytest.raises(KeyboardInterrupt):
    judge(place, metrics=('is',), reference=None, batch_size=7)
  with open(place / 'a' / '003.png', 'r+b') as file:  # the folder is the same
    file.write(file.read())
  Projection.calls, Projection.fail_at = 0, None
  judge(place, metrics=('is',), reference=None, batch_size=7)
  assert Projection.calls == 5


def test_statistics_stand_for_their_images(place):
  made = compare_sets.make_reference(
    place / 'b',
    place / 'out' / 'b_stats.npz',
    network={'weights': place / 'w.pth'},
  )
  assert made.recipe['count'] == COUNT
  assert made.recipe['image_size'] == [SIDE, SIDE]
  whole = judge(place, metrics=('fid', 'sfid'))
  row = judge(place, reference='out/b_stats.npz', metrics=('fid', 'sfid'))
  assert row['fid'] == pytest.approx(whole['fid'], rel=1e-9)
  assert row['sfid'] == pytest.approx(whole['sfid'], rel=1e-9)
  assert row['warnings'] == []
  with pytest.raises(ValueError, match='kid compares images one by one'):
    judge(place, reference='out/b_stats.npz', metrics=('kid',), kid_size=20)


def test_statistics_of_another_recipe_are_called_out(place, capsys):
  out = place / 'b_stats.npz'
  compare_sets.make_reference(
    place / 'b', out, network={'weights': place / 'w.pth'}
  )
  (place / 'w.pth').write_bytes(b'other')
  words = ('evaluate', f'--samples={place / "a"}', f'--reference={out}')
  words += ('--metrics=fid', '--few', f'--weights={place / "w.pth"}')
  assert smoke_runs.cdm(*words, f'--out={place / "row.json"}') == 0
  assert 'NOT COMPARABLE: weights_sha256 is' in capsys.readouterr().err
  assert 'not comparable: weights' in (place / 'row.md').read_text(
    encoding='utf-8'
  )
  found = reference_statistics.read(out)
  np.savez(place / 'adm.npz', mu=found.mean, sigma=found.covariance)
  row = judge(place, reference='adm.npz', metrics=('fid',))
  assert 'does not say how it was made' in row['warnings'][0]
  with pytest.raises(ValueError, match='no spatial statistics'):
    judge(place, reference='adm.npz', metrics=('sfid',))


def test_an_archive_of_both_serves_each_metric_with_what_it_needs(place):
  images = pictures(2) // 2
  other = features('a', place).pool
  np.savez(
    place / 'both.npz', arr_0=images, mu=other.mean(0), sigma=np.cov(other.T)
  )
  row = judge(place, reference='both.npz', metrics=('fid', 'kid'), kid_size=20)
  assert row['fid'] == pytest.approx(0.0, abs=1e-3)  # of its statistics
  expected = kid(other, features('b', place).pool, size=20)[0]
  assert row['kid'] == pytest.approx(expected, rel=1e-5)  # of its images
  assert set(row['conventions']) == {'fid', 'kid'}


def test_the_data_of_a_config_goes_through_its_own_preprocessing(place):
  path = smoke_runs.CONFIGS / 'smoke.py'
  out = place / 'data.npz'
  made = compare_sets.make_reference(
    f'{path}:eval',
    out,
    selection=Selection(num=12),
    network={'weights': place / 'w.pth'},
  )
  assert made.count == 12
  assert made.recipe['image_size'] == [8, 8]
  assert made.recipe['crop'] == 'center' and made.recipe['filter'] == 'area'
  assert made.recipe['data']['kind'] == 'synthetic'
  row = compare(
    f'{path}:eval', out, metrics=('fid',), weights=place / 'w.pth', num=12
  )
  assert row['fid'] == pytest.approx(0.0, abs=1e-3)


def test_a_cascade_is_judged_as_the_folder_it_would_have_written(place):
  workdir, config = smoke_runs.trained(), smoke_runs.CONFIGS / 'smoke.py'
  words = ('sample', f'--config={config}', f'--workdir={workdir / "base"}')
  assert (
    smoke_runs.cdm(*words, f'--out={place / "s"}', '--num=12', '--seed=3') == 0
  )
  given = dict(metrics=('fid', 'is'), weights=place / 'w.pth')
  drawn = compare(
    f'{config}@{workdir / "base"}', place / 'b', num=12, seed=3, **given
  )
  written = compare(place / 's' / 'smoke', place / 'b', **given)
  assert drawn['n'] == written['n'] == 12
  # Other batches are other programs: a grey level may differ.
  assert drawn['fid'] == pytest.approx(written['fid'], rel=1e-2)
  assert drawn['samples_recipe']['stages'][0]['checkpoint'] == 4
  assert written['samples_recipe']['sampling']['seed'] == 3
  text = result_line.line(drawn)
  assert 'seed 3' in text and 'step 4, EMA, ddim' in text
  with pytest.raises(ValueError, match='give --num, the number of images'):
    compare(f'{config}@{workdir / "base"}', place / 'b', **given)


def test_a_stage_is_judged_on_true_low_res_images(place):
  stage = smoke_runs.trained() / 'sr'
  given = dict(metrics=('fid',), weights=place / 'w.pth')
  config = smoke_runs.CONFIGS / 'smoke_sr.py'
  row = compare(f'{stage}@eval', f'{config}:eval', num=5, **given)
  words = ('upscale', f'--workdir={stage}', f'--out={place / "u"}')
  assert smoke_runs.cdm(*words, '--held_out=5') == 0
  written = compare(place / 'u' / 'upscaled', f'{config}:eval', num=5, **given)
  assert row['fid'] == pytest.approx(written['fid'], rel=1e-2)
  assert row['samples_recipe']['low_res'] == 'true'


def test_a_sweep_judges_every_setting_and_continues(place, capsys):
  stage, config = (
    smoke_runs.trained() / 'sr',
    smoke_runs.CONFIGS / 'smoke_sr.py',
  )
  out = place / 'sweep'
  words = [
    *('sweep', f'--samples={stage}@eval', f'--reference={config}:eval'),
    *(f'--out={out}', '--num=4', '--few', f'--weights={place / "w.pth"}'),
    *('--metrics=fid,sfid', '--batch_size=64'),
    '--try=sampler.grid.spacing=2,4',
  ]
  assert smoke_runs.cdm(*words) == 0
  said = capsys.readouterr().out
  assert 'sampler.grid.spacing=2 ...' in said
  rows = [
    json.loads(x)
    for x in (out / 'rows.jsonl').read_text(encoding='utf-8').splitlines()
  ]
  steps = [row['samples_recipe']['stages'][0]['sampler'] for row in rows]
  assert [sampler['grid']['spacing'] for sampler in steps] == ['2', '4']
  assert rows[0]['fid'] != rows[1]['fid']
  assert_declared(rows[0], row_types.SweepRow)
  assert_declared(rows[0]['sweep'], row_types.SweepDescription)
  # Sweeps of earlier versions, which hold None, are continued.
  assert rows[0]['sweep']['kid_size'] is None
  (stage,) = rows[0]['samples_recipe']['stages']
  assert_declared(stage, row_types.StageEntry)
  assert Projection.calls == 2 + 1  # the reference once
  best = min(rows, key=lambda row: row['fid'])
  bold = f'| **{best["setting"][0][1]}** | **{best["fid"]:.4g}** |'
  assert bold in said and bold in (out / 'table.md').read_text(encoding='utf-8')
  with (out / 'rows.jsonl').open('a', encoding='utf-8') as file:
    file.write('{"torn')
  Projection.calls = 0
  words[-1] = '--try=sampler.grid.spacing=4,8'
  assert smoke_runs.cdm(*words) == 0
  said = capsys.readouterr().out
  assert 'spacing=8 ...' in said and 'spacing=4 ...' not in said
  assert len((out / 'rows.jsonl').read_text(encoding='utf-8').splitlines()) == 3
  # The samples and, once for all settings, the reference.
  assert Projection.calls == 2
  assert smoke_runs.cdm(*words, '--seed=5') == 2
  assert 'another sweep: seed was None, now it is 5' in capsys.readouterr().err


def test_a_sweep_of_samplers_tells_what_an_image_costs(place, capsys):
  config = smoke_runs.CONFIGS / 'smoke_sr.py'
  words = [
    *('sweep', f'--samples={smoke_runs.trained() / "sr"}@eval'),
    *(f'--reference={config}:eval', f'--out={place / "sweep"}', '--num=2'),
    *('--few', f'--weights={place / "w.pth"}', '--batch_size=64'),
    *('--try=sampler=ddim,heun', '--try=steps=1,2'),
  ]
  assert smoke_runs.cdm(*words) == 0
  said = capsys.readouterr().out
  text = (place / 'sweep' / 'rows.jsonl').read_text(encoding='utf-8')
  rows = [json.loads(line) for line in text.splitlines()]
  assert_declared(rows[0], row_types.SweepRow)
  costs = {
    tuple(value for _, value in row['setting']): row['cost'][0]['evaluations']
    for row in rows
  }
  # Heun's last step, to x_0, takes one.
  assert costs == {
    **{('ddim', '1'): 1, ('ddim', '2'): 2},
    **{('heun', '1'): 1, ('heun', '2'): 3},
  }
  drawn = [row['samples_recipe']['stages'][0]['sampler'] for row in rows]
  assert {d['kind'] for d in drawn} == {'ddim', 'heun'}
  assert '| sampler | steps | fid | network evaluations |' in said
  page = (place / 'sweep' / 'quality.html').read_text(encoding='utf-8')
  assert page.count('class="curve"') == 2 * 2  # and in the legend
  assert smoke_runs.cdm(*words, '--sampler=heun') == 2
  assert '--sampler=heun is for all settings' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('word', 'message'),
  [
    (['--try=sampler=ddim,fast'], '--sampler=fast: known samplers are'),
    (['--try=level'], '--try=level: expected KEY=VALUE'),
    (['--try=a=1,'], '--try=a=1,: expected'),
    (['--try=a=1', '--try=a=2'], '--try names a twice'),
    (['--try=a=1', '--metrics=psnr'], "--metrics names 'psnr'; known are fid"),
    (['--try=a=1'], 'photos is not sampled now'),
  ],
)
def test_a_sweep_that_means_nothing_is_refused(word, message, capsys, tmp_path):
  words = ('sweep', '--samples=photos', '--reference=b', f'--out={tmp_path}/o')
  assert smoke_runs.cdm(*words, *word) == 2
  assert message in capsys.readouterr().err


def test_settings_are_all_combinations():
  found = sweep.settings(['a=1,2', 'b=x,y'])
  assert found == [(('a', x), ('b', y)) for x in ('1', '2') for y in ('x', 'y')]
  rows = [{'fid': 3.0, 'is': 2.0}, {'fid': 1.0, 'is': 1.0}]
  assert sweep.choose(rows, 'fid') == 1
  assert sweep.choose(rows, 'is') == 0


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'metrics': ('fid',)}, 'FID of 30 images is biased .* add --few'),
    ({'metrics': ('kid',)}, 'KID draws subsets of 1,000 .* there are 30'),
    ({'metrics': ('is',), 'num': 9}, 'over 10 splits, and there are 9'),
    ({'metrics': ('fid',), 'num': 40}, '--num=40: .* holds 30 images'),
    ({'metrics': ('fid',), 'reference': None}, '--reference is missing'),
    ({'metrics': ('fid',), 'samples': 'no'}, 'no does not exist'),
    ({'metrics': ('fid',), 'weights': 'no.pth'}, 'no.pth is not there. Give'),
  ],
)
def test_what_cannot_be_judged_is_refused_before_work(place, given, message):
  given = {'samples': 'a', 'reference': 'b', 'weights': 'w.pth'} | given
  for name in ('samples', 'reference', 'weights'):
    given[name] = given[name] and place / given[name]
  few = given['weights'].name == 'no.pth'
  with pytest.raises(ValueError, match=message):
    compare(**given, allow_few_images=few)
  assert not Projection.calls


def test_pictures_of_two_sizes_are_refused_by_name(place):
  Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(place / 'a' / '010.png')
  with pytest.raises(ValueError, match="'010' of .* 9x9 .* has 8x8"):
    judge(place)


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--samples=a', '--metrics=fod', '--reference=b'], "names 'fod'; known"),
    (['--samples=a', '--metrics=fid'], '--reference=WHAT is missing'),
    (['--reference=b'], '--samples=WHAT is missing'),
    (
      ['--samples=a', '--reference=b', '--metrics=psnr', '--num=3'],
      '--num is for metrics of sets',
    ),
    (
      ['--samples=a', '--reference=b', '--metrics=fid', '--lowres=c'],
      '--lowres is for metrics of pairs',
    ),
    (
      ['--samples=a', '--reference=b', '--metrics=consistency'],
      'consistency needs --lowres',
    ),
    (['--make_reference', '--reference=b'], 'and --out=FILE.npz'),
    (
      ['--make_reference', '--reference=b', '--out=x.json'],
      'statistics are written as .npz',
    ),
    (
      ['--samples=a', '--reference=b', '--metrics=fid', '--kid_size=9'],
      '--kid_size is for kid, which is not among',
    ),
    (
      ['--samples=a', '--reference=b', '--metrics=kid', '--few'],
      '--few is for fid, fd and sfid, which are not among',
    ),
    (
      ['--samples=a', '--reference=b', '--metrics=fid', '--seed=9'],
      '--seed=9 is for drawn images, but none are drawn',
    ),
    (
      ['--make_reference', '--reference=b', '--out=x.npz', '--few'],
      '--few has no effect on --make_reference',
    ),
    (
      ['--samples=a', '--reference=b', '--metrics=fid', '--batch_size=0'],
      '--batch_size=0: it must be at least 1',
    ),
    (
      ['--samples=a', '--reference=b', '--metrics=fid', f'--{OF_B}=c'],
      f'--{OF_B}=c changes the config of --reference, but --reference=b is of',
    ),
    (
      ['--samples=a', '--reference=c.py:eval', '--metrics=psnr', f'--{OF_B}=c'],
      'Config overrides of the reference are for metrics of sets',
    ),
    (
      ['--make_reference', '--reference=c', '--out=x.npz', '--config.a=c'],
      'config.a=c changes the config of --reference, but --reference=c is of',
    ),
  ],
)
def test_options_that_mean_nothing_are_refused(words, message, capsys):
  assert smoke_runs.cdm('evaluate', *words) == 2
  assert message in capsys.readouterr().err


def test_data_of_a_config_may_lie_elsewhere_for_samples_and_reference(
  place, capsys
):
  """`--config.` is about --samples, `--reference_config.` about --reference."""
  config = smoke_runs.CONFIGS / 'smoke.py'

  def words(prefix, split, folder):
    keys = {f'{split}_data.kind': 'folder', f'{split}_data.path': folder}
    keys['pipeline.image_size'] = SIDE
    return [f'--{prefix}.{key}={value}' for key, value in keys.items()]

  fixed = f'--reference={config}:train', f'--weights={place / "w.pth"}'
  of_b = words('reference_config', 'train', place / 'b')
  evaluate = ('evaluate', '--metrics=fid', '--few', f'--samples={config}:eval')
  of_a = words('config', 'eval', place / 'a')
  assert smoke_runs.cdm(*evaluate, *fixed, *of_a, *of_b) == 0
  row = json.loads(capsys.readouterr().out)
  assert row['fid'] == judge(place, metrics=('fid',))['fid']
  assert row['samples_recipe']['data']['path'] == str(place / 'a')
  assert row['reference_recipe']['data']['path'] == str(place / 'b')
  out = place / 's.npz'
  made = ('evaluate', '--make_reference', f'--out={out}', *fixed)
  assert smoke_runs.cdm(*made, *of_b) == 0
  assert reference_statistics.read(out).recipe == row['reference_recipe']
  out.unlink()
  capsys.readouterr()
  # With one config, --config.KEY means the same.
  of_b = words('config', 'train', place / 'b')
  assert smoke_runs.cdm(*made, *of_b) == 0
  assert reference_statistics.read(out).recipe == row['reference_recipe']
  out.unlink()
  compared = row['compared']
  assert compared['filter'] == {'samples': 'area', 'reference': 'area'}
  assert compared['source'] == {'samples': 'unknown', 'reference': 'unknown'}
  assert compared['count']['reference'] == row['n_reference']
  capsys.readouterr()
  for other, message in (
    ('model.features=9', r'--reference_config\.model\.features does not cha'),
    (
      'train_data.pth=x',
      r'exif_rotation: --reference_config\.train_data\.path=',
    ),
    (
      f'train_data.path={place / "c"}',
      f"'{place}/c' is not a folder of images",
    ),
  ):
    assert smoke_runs.cdm(*made, *of_b, f'--reference_config.{other}') == 2
    assert re.search(message, capsys.readouterr().err)


def test_one_row_may_have_metrics_of_both_kinds(place, capsys):
  words = ('evaluate', f'--samples={place / "a"}', f'--reference={place / "b"}')
  words += (f'--weights={place / "w.pth"}', '--metrics=fid,psnr', '--few')
  assert smoke_runs.cdm(*words) == 0
  row = json.loads(capsys.readouterr().out)
  assert {'fid', 'psnr'} < row.keys() and 'ssim' not in row
  assert set(row['conventions']) == {'fid', 'psnr'}


def test_damaged_statistics_are_refused(tmp_path):
  path = tmp_path / 's.npz'
  np.savez(path, mu=np.zeros(3), sigma=np.eye(2))
  with pytest.raises(ValueError, match=r'mu of shape \(3,\) and sigma of'):
    reference_statistics.read(path)
  whole = {'mu': np.zeros(2), 'sigma': np.eye(2)}
  for damage, told in (
    ({'mu': np.array(['a', 'b'])}, 'mu is <U1, and real numbers'),
    ({'sigma': np.eye(2) * 1j}, 'sigma is complex128, and real numbers'),
    ({'mu': np.array([np.nan, 0])}, 'not finite'),
    ({'count': np.arange(3)}, r'count is int64 \(3,\), and one number'),
    ({'count': np.array(-1)}, 'one number of images is expected'),
    ({'recipe': np.array('{"a": ')}, 'recipe in .*s.npz is damaged'),
    ({'recipe': np.array('[1]')}, 'recipe in .*s.npz is damaged.* an object'),
    ({'mu': np.zeros(5000), 'sigma': np.zeros((1, 5000))}, 'mu of shape .5000'),
  ):
    np.savez(path, **(whole | damage))
    with pytest.raises(ValueError, match=told) as caught:
      reference_statistics.read(path)
    assert exit_codes.classify(caught.value) is exit_codes.DATA_ERROR
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(ValueError, match='cannot be read as statistics'):
    reference_statistics.read(path)


def test_damaged_partial_results_are_gathered_again(tmp_path, caplog):
  parts = partial_results.PartialResults(tmp_path)
  for done in (1, 2):
    parts.write(done, {'mean': np.full(40, done)})
  path = tmp_path / 'process-0-batches-2.npz'
  path.write_bytes(path.read_bytes()[:-40])
  done, arrays = parts.newest()
  assert done == 1 and arrays['mean'][0] == 1
  assert 'batches-2.npz cannot be read as an .npz' in caplog.text


def test_eight_devices_give_inceptions_features(tmp_path):
  description, arrays = oracle('inception_fid')
  published_weights.write_pytorch(
    tmp_path / 'w.pth', rule_weights(description['weights']), zipped=True
  )
  network = feature_networks.read(tmp_path / 'w.pth')
  extract = Extractor(network, devices=jax.devices(), batch_size=8)
  both = np.stack([arrays[f'img/32_{k}'] for k in ('smooth', 'noisy')])
  found = extract(np.concatenate([both] * 5))  # more than a batch
  np.testing.assert_allclose(found.pool[8:], found.pool[:2], rtol=1e-5)
  for i, kind in enumerate(('smooth', 'noisy')):
    key = f'tf1resize/32_{kind}/2048'
    tol = description['keys'][key]['tol']
    assert_matches(found.pool[i], arrays[key], tol, key)
