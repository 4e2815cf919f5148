"""A stage is examined whole, on one page, and again without new work."""

import html
import html.parser
import json
import re
import shlex

import numpy as np
import pytest
from support import smoke_runs
from support.declared import assert_declared

from cdm.evaluation import (
  extract_features,
  groups,
  lpips_scorer,
  paired_metrics,
)
from cdm.evaluation.metrics.fid import fid
from cdm.evaluation.robustness import (
  aggregate,
  report_types,
  scoring,
  wording,
)
from cdm.models.inception import Features
from cdm.ops import resize
from cdm.ops.pair_scores import consistency, psnr
from cdm.reporting import jsonl
from cdm.sampling import upscale_files, upscaler

QUICK = ('--degrade=noise=10', '--degrade=contrast=0.5', '--degrade=kernel')


def examine(out, *more, samples=None, num=4, draws=3, degrade=QUICK):
  samples = samples or f'{smoke_runs.trained() / "sr"}@eval'
  return smoke_runs.cdm(
    *('robustness', f'--samples={samples}', f'--out={out}', f'--num={num}'),
    *(f'--draws={draws}', '--batch_size=8', *degrade, *more),
  )


def report(out):
  return json.loads((out / 'report.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """-> folder of an examination; not to be changed."""
  out = tmp_path_factory.mktemp('robust') / 'out'
  labels = out.parent / 'groups.csv'
  rows = [f'{n},{"ab"[n // 32]},{"cd"[n // 16 % 2]}' for n in range(64)]
  labels.write_text('image,first,second\n' + '\n'.join(rows), encoding='utf-8')
  assert examine(out, f'--groups={labels}', '--title=<Ours>') == 0
  return out


class Document(html.parser.HTMLParser):
  def __init__(self, text):
    super().__init__()
    self.tags = []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))


def test_the_page_refers_to_nothing_outside_itself(done):
  text = (done / 'report.html').read_text(encoding='utf-8')
  for _, attributes in Document(text).tags:
    for name in ('src', 'href', 'xlink:href', 'data', 'action', 'srcset'):
      assert attributes.get(name, 'data:').startswith('data:')
  assert not re.search(r'url\(|@import|https?://|<script|<link', text)
  assert '&lt;Ours&gt;' in text and '<Ours>' not in text


def test_types_declare_what_a_study_writes(done):
  content = report(done)
  assert_declared(content, report_types.Report)
  assert_declared(content['recipe'], report_types.StudyManifest)
  assert_declared(content['calibration'], report_types.CalibrationReport)
  for kind in content['degradations']:
    assert_declared(kind, report_types.DegradationReport)
  columns = ('psnr', 'ssim', 'consistency', 'gain', 'fall')
  for division in content['groups']:
    assert_declared(division, report_types.DivisionReport)
    for row in division['rows']:
      assert_declared(row, groups.GroupRow, further=columns)
    for gap in division['gaps'].values():
      assert_declared(gap, groups.Gap)
  for name, kind in (
    ('rows', report_types.ScoreRow),
    ('draws', report_types.DrawsRow),
  ):
    for row in jsonl.read(done / f'{name}.jsonl'):
      assert_declared(row, kind)


def test_the_page_shows_all_that_was_measured(done):
  text = (done / 'report.html').read_text(encoding='utf-8')
  for heading in (
    *('In short', 'Gaussian noise', 'Contrast', 'Another downsampling filter'),
    *('Groups', 'By first and second', 'Uncertainty', 'What was run'),
  ):
    assert f'>{heading}</h' in text, heading
  found = report(done)
  assert found['n'] == 4 and found['recipe']['checkpoint'] == 4
  assert found['calibration']['k'] == 3
  assert wording.calibration(found['calibration']) in text
  kinds = {kind['name']: kind for kind in found['degradations']}
  assert len(kinds['kernel']['values']) == 5  # all but the stage's own
  assert kinds['noise']['cells'] == ['clean', 'noise-10']
  # Charts: three metrics of three degradations, and three of calibration.
  assert text.count('<svg') == 12
  strips = 3 * 2 * 3 * 2 + (5 - 1) * 2 * 3 + 3 * 2 + 2 * 5
  assert len([t for t, _ in Document(text).tags if t == 'img']) == strips
  assert 'groups have fewer than 10 images' in text
  word = shlex.quote(f'--samples={smoke_runs.trained() / "sr"}@eval')
  assert f'cdm robustness \\\n    {html.escape(word)} \\\n' in text
  assert 'grid.spacing 4' in text


def test_clean_scores_are_those_of_upscale_and_evaluate(tmp_path):
  """The whole data, so that both draw the same images with the same noise."""
  out, held = tmp_path / 'r', tmp_path / 'u'
  assert examine(out, num=64, draws=0, degrade=['--degrade=noise=10']) == 0
  words = (
    'upscale',
    f'--workdir={smoke_runs.trained() / "sr"}',
    f'--out={held}',
  )
  assert smoke_runs.cdm(*words, '--held_out=64', '--batch_size=8') == 0
  expected = paired_metrics.evaluate_paths(
    held / 'upscaled', held / 'original', lowres=held / 'lowres',
    downsample='area',
  )  # fmt: skip
  clean = report(out)['clean']
  for metric in ('psnr', 'ssim', 'consistency'):
    ours, smooth = clean[metric]['ours'], clean[metric]['bicubic']
    assert ours['mean'] == pytest.approx(expected[metric], rel=1e-6)
    assert smooth['mean'] == pytest.approx(expected['bicubic'][metric])
  assert report(out)['groups'][0]['by'] == 'class'
  assert [row['n'] for row in report(out)['groups'][0]['rows']] == [16] * 4
  assert report(out)['calibration'] is None


def test_scores_are_those_of_the_pictures(done):
  """A paler picture is compared after it was stretched back, but shrinks to
  the pale input as it was made; bicubic shows both."""
  rows = {
    (row['record'], row['cell']): row for row in jsonl.read(done / 'rows.jsonl')
  }
  kept = sorted((done / 'pictures/clean/original').glob('*.png'))
  assert len(kept) == 2
  for cell in ('clean', 'noise-10', 'contrast-0.5', 'kernel-nearest'):
    for file in kept:
      given, smooth, made, original = (
        upscale_files.image_decoder.read_pixels(path / file.name)
        for path in (
          *(done / 'pictures' / cell / v for v in scoring.VERSIONS[:-1]),
          file.parent,
        )
      )
      row = rows[int(file.stem), cell]
      for method, picture in (('ours', made), ('bicubic', smooth)):
        assert row[method]['psnr'] == pytest.approx(psnr(picture, original))
      raw = np.asarray(resize.resize_uint8(given, original.shape[:2]))
      expected = consistency(raw[None], given[None], method='area')[0]
      assert row['bicubic']['consistency'] == pytest.approx(expected)


def test_draws_differ_and_the_first_is_the_one_that_is_scored(done):
  clean = {
    row['record']: row['ours']['psnr']
    for row in jsonl.read(done / 'rows.jsonl')
    if row['cell'] == 'clean'
  }
  for row in jsonl.read(done / 'draws.jsonl'):
    assert row['psnr_of_one'] == pytest.approx(clean[row['record']])
    tally = scoring.tally_of(row)
    assert tally.variance > 0 and tally.ranks.sum() == pytest.approx(768)
  found = report(done)['calibration']
  assert found['rms_spread'] > 1.0
  assert found['psnr_of_mean']['mean'] > found['psnr_of_one']['mean']


def test_a_killed_examination_continues_and_gives_the_same(
  done, tmp_path, monkeypatch
):
  out = tmp_path / 'again'
  words = (f'--groups={done.parent / "groups.csv"}', '--title=<Ours>')
  run, calls, kills = upscaler.Upscaler.start_rows, [], [3]

  def fails(self, lowres, **given):
    calls.append(len(lowres))
    if kills and len(calls) == kills[0]:
      kills.clear()
      raise KeyboardInterrupt
    return run(self, lowres, **given)

  monkeypatch.setattr(upscaler.Upscaler, 'start_rows', fails)
  assert examine(out, *words) == 130
  assert len(jsonl.read(out / 'rows.jsonl')) == 16
  with open(out / 'rows.jsonl', 'a', encoding='utf-8') as file:
    file.write('{"torn')
  assert examine(out, *words) == 0
  assert set(calls) == {8}  # one shape, one program
  assert len(calls) == 3 + 2 + 2  # rows 32 = 2 + 2 batches of 8, draws 4 * 3
  for name in ('rows.jsonl', 'draws.jsonl'):
    lines = [
      sorted((x / name).read_text(encoding='utf-8').split('\n'))
      for x in (out, done)
    ]
    assert lines[0] == lines[1]
  first, second = report(done), report(out)
  assert first.pop('command') != second.pop('command')
  assert first == second
  calls.clear()
  assert examine(out, *words) == 0
  assert not calls
  # A metric that is asked for later joins those that are there.
  assert examine(out, *words, '--metrics=psnr_y') == 0
  assert len(calls) == 4
  assert examine(out, *words, '--metrics=psnr,psnr_y,ssim') == 0
  assert len(calls) == 4
  calls.clear()
  # A picture that went is drawn anew, and so is what was not asked for yet.
  next(out.glob('pictures/noise-10/ours/*.png')).unlink()
  more = (*QUICK, '--degrade=jpeg=50')
  assert examine(out, *words, degrade=more) == 0
  assert calls == [8]  # one picture and four images of jpeg, filled up
  # What was damaged on the disk is drawn again: here the draws of an image.
  calls.clear()
  maps = next(out.glob('pictures/draws-*/*.npz'))
  whole = maps.read_bytes()
  maps.write_bytes(whole[: len(whole) // 2])
  assert examine(out, *words, degrade=more) == 0
  assert calls and maps.read_bytes() == whole


def test_what_belongs_to_something_else_is_refused(done, tmp_path, capsys):
  assert examine(done, '--seed=1') == 2
  assert 'another manifest: seed is 0 there, 1 now' in capsys.readouterr().err
  assert examine(done, '--config.sampler.grid.spacing=2') == 2
  assert 'another manifest: sampler is' in capsys.readouterr().err
  (tmp_path / 'rows.jsonl').write_text('{}\n', encoding='utf-8')
  assert examine(tmp_path) == 2
  assert 'rows.jsonl of another command' in capsys.readouterr().err
  (tmp_path / 'page').mkdir()
  (tmp_path / 'page' / 'report.html').write_text(
    'of cdm report', encoding='utf-8'
  )
  assert examine(tmp_path / 'page') == 2
  line = capsys.readouterr().err
  assert 'report.html is not from an earlier start' in line
  assert '--overwrite' not in line  # an option that this command lacks


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'samples': '{}/base@eval'}, "holds 'smoke', a base model"),
    ({'samples': '{}/sr'}, 'give WORKDIR@eval'),
    ({'samples': '{}/none@eval'}, 'There is no checkpoint in'),
    ({'num': 65}, '--num=65: .*/sr@eval holds 64 images'),
    ({'num': 0}, '--num=0: it must be at least 1'),
    ({'draws': 1}, '--draws=1: a spread needs 2 samples'),
    ({'draws': -2}, '--draws=-2: a spread needs 2 samples'),
    ({'degrade': ['--degrade=fog']}, "no degradation 'fog'; known are noise"),
    ({'degrade': ['--metrics=mse']}, "--metrics names 'mse'; known are psnr"),
    ({'degrade': ['--metrics=fid,psnr']}, '--metrics begins with fid'),
    ({'degrade': ['--metrics=psnr,psnr']}, 'names a metric twice'),
    ({'degrade': ['--metrics=psnr,fid']}, 'FID of 4 images is biased'),
    ({'degrade': ['--metrics=ms_ssim']}, 'needs images of 161 pixels'),
    ({'degrade': ['--few']}, '--few is for --metrics=fid'),
    ({'degrade': ['--lpips=vgg']}, '--lpips is for --metrics=lpips'),
    ({'degrade': ['--seed=-1']}, '--seed=-1: seeds are'),
    ({'degrade': ['--level=0.5']}, 'was trained on levels up to 0.2'),
    ({'degrade': ['--groups=no.csv']}, '--groups=no.csv: there is no such'),
  ],
)
def test_bad_input_is_refused_before_anything_is_written(
  given, message, tmp_path, capsys
):
  given = dict(given)
  if 'samples' in given:
    given['samples'] = given['samples'].format(smoke_runs.trained())
  assert examine(tmp_path / 'out', **given) == 2
  assert re.search(message, capsys.readouterr().err)
  assert not (tmp_path / 'out').exists()


def test_one_group_only_is_refused(tmp_path, capsys):
  path = tmp_path / 'g.json'
  path.write_text(
    json.dumps(dict.fromkeys(map(str, range(64)), 'f')), encoding='utf-8'
  )
  assert examine(tmp_path / 'out', f'--groups={path}') == 2
  assert "4 images are of one group, 'f'" in capsys.readouterr().err


def test_a_mesh_gives_the_rows_of_one_device(done, tmp_path):
  with smoke_runs.on(4):
    assert examine(tmp_path, draws=0, degrade=QUICK[:1]) == 0
  alone = {(r['record'], r['cell']): r for r in jsonl.read(
    done / 'rows.jsonl'
  )}  # fmt: skip
  for row in jsonl.read(tmp_path / 'rows.jsonl'):
    other = alone[row['record'], row['cell']]
    assert row['ours']['psnr'] == pytest.approx(other['ours']['psnr'], rel=1e-3)
    assert row['bicubic'] == other['bicubic']


def test_fid_is_that_of_the_pictures_of_each_input(tmp_path, monkeypatch):
  def pool(images):
    return images.reshape(len(images), -1)[:, ::97].astype(np.float32) / 255

  class Projection:
    batch_size, metrics = 5, ()

    def __init__(self, params, *, batch_size):
      pass

    def start(self, images):
      return images

    def finish(self, images):
      return Features(*[pool(images)] * 4)

  monkeypatch.setattr(extract_features, 'Extractor', Projection)
  monkeypatch.setattr(extract_features.inception, 'read', lambda path: None)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  weights, out = tmp_path / 'w.pth', tmp_path / 'out'
  weights.write_bytes(b'weights')
  words = ('--metrics=psnr,fid', '--few', f'--weights={weights}')
  given = dict(num=8, draws=0, degrade=['--degrade=contrast=0.5'])
  assert examine(out, *words, **given) == 0
  folder = out / 'pictures'

  def gaussian(path):
    files = sorted(path.glob('*.png'))
    assert len(files) == 8
    x = pool(
      np.stack(list(map(upscale_files.image_decoder.read_pixels, files)))
    )
    return x.mean(0), np.cov(x.T)

  (kind,) = report(out)['degradations']
  original = gaussian(folder / 'clean' / 'original')
  for method in ('ours', 'bicubic'):
    for i, cell in enumerate(('clean', 'contrast-0.5')):
      expected = fid(*gaussian(folder / cell / method), *original)
      found = kind['curves']['fid'][method][i]['mean']
      assert found == pytest.approx(expected, rel=1e-3)
  monkeypatch.setattr(Projection, 'start', None)  # nothing is done again
  assert examine(out, *words, **given) == 0
  assert '>FID<' in (out / 'report.html').read_text(encoding='utf-8')


def test_lpips_is_taken_of_every_picture(tmp_path, monkeypatch, capsys):
  class Perceptual:
    convention = 'mean absolute difference'

    def __init__(self, backbone, files):
      assert (backbone, files) == ('vgg', ['a.pth', 'b.pth'])

    def __call__(self, a, b):
      return np.abs(a.astype(float) - b).mean()

  monkeypatch.setattr(lpips_scorer, 'LpipsScorer', Perceptual)
  words = ('--metrics=psnr,lpips', '--lpips=vgg')
  words += ('--lpips_weights=a.pth,b.pth',)
  given = dict(num=2, draws=0, degrade=QUICK[:1])
  assert examine(tmp_path, *words, **given) == 0
  for row in jsonl.read(tmp_path / 'rows.jsonl'):
    folder = tmp_path / 'pictures' / row['cell']
    file = f'{row["record"]:06d}.png'
    ours = upscale_files.image_decoder.read_pixels(folder / 'ours' / file)
    original = tmp_path / 'pictures/clean/original' / file
    original = upscale_files.image_decoder.read_pixels(original)
    expected = np.abs(ours.astype(float) - original).mean()
    assert row['ours']['lpips'] == pytest.approx(expected)
  assert 'mean absolute difference' in (tmp_path / 'report.html').read_text(
    encoding='utf-8'
  )
  assert examine(tmp_path, **given) == 2
  assert 'another manifest: lpips is' in capsys.readouterr().err


def row(record, cell, psnr, smooth=20.0):
  scores = {'psnr': psnr}, {'psnr': smooth}
  return (record, cell), dict(zip(('ours', 'bicubic'), scores, strict=True))


def test_what_is_lost_is_taken_image_by_image():
  """Two images, one 10 dB harder: the loss of 3 is sure all the same.

  An image that is exact under one input is left out of all that is compared.
  """
  rows = dict(
    [row(0, 'clean', 30.0), row(1, 'clean', 20.0)]
    + [row(0, 'noise-5', 27.0), row(1, 'noise-5', 17.0)]
    + [row(0, 'noise-10', None), row(1, 'noise-10', 15.0)]
  )
  cells = ['clean', 'noise-5', 'noise-10']
  table = aggregate.Table(rows, {}, [0, 1], cells)
  kind = aggregate.summarize_degradation('noise', (5.0, 10.0), ['psnr'], table)
  assert table.common('psnr') == {1}
  assert kind['fall']['ours']['mean'] == 5.0
  means = [point['mean'] for point in kind['curves']['psnr']['ours']]
  assert means == [20.0, 17.0, 15.0]
  table = aggregate.Table(rows, {}, [0, 1], cells[:2])
  kind = aggregate.summarize_degradation('noise', (5.0,), ['psnr'], table)
  assert kind['fall']['ours'] == {'mean': 3.0, 'low': 3.0, 'high': 3.0}
  assert kind['fall']['bicubic']['mean'] == 0.0
  means = [point['mean'] for point in kind['curves']['psnr']['ours']]
  assert means == [25.0, 22.0]


def test_the_worst_group_is_told_with_what_is_sure():
  gap = dict(group='f', mean=-0.5, low=-1.0, high=0.1, sure=False)
  sure = dict(group='m', mean=-0.04, low=-0.06, high=-0.02, sure=True)
  rows = [{'enough': True}, {'enough': True}, {'enough': False}]
  told = {'by': 'sex', 'rows': rows, 'gaps': {'psnr': gap}}
  minus = wording.MINUS
  assert wording.worst_group(told, 'psnr') == (
    f'By sex: worst served is “f”, PSNR {minus}0.50 [{minus}1.00, +0.10] dB '
    'against all others; for the worst of 2 that may be chance.'
  )
  told['gaps'] |= {'ssim': sure, 'gain': sure | {'sure': False}}
  assert wording.worst_group(told, 'psnr').endswith(
    'may be chance. Surely worse than all others: “m”, SSIM '
    f'{minus}0.040 [{minus}0.060, {minus}0.020].'
  )
  told['gaps'] = {}
  assert 'no group is called worse' in wording.worst_group(told, 'psnr')


def test_the_verdict_follows_the_ratio():
  base = dict(k=4, interval=[0.4, 0.6], coverage_bias=0.01)
  for ratio, verdict in (
    (0.0, 'overconfident: the draws do not differ at all'),
    (0.5, 'overconfident: the draws differ from each other 2.00 times less'),
    (1.04, 'calibrated on the whole'),
    (1.5, 'underconfident: the draws differ from each other 1.50 times more'),
  ):
    assert verdict in wording.calibration(base | {'spread_skill': ratio})
  for bias, verdict in (
    (-0.1, '10.0 points less often than they should.'),
    (0.01, 'as often as they should.'),
    (0.1, '10.0 points more often than they should: most values are nearer'),
  ):
    found = base | {'spread_skill': 0.5, 'coverage_bias': bias}
    assert verdict in wording.calibration(found)
