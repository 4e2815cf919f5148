"""One visitor, from the first command to the report, in small."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from support import smoke_runs

from cdm.checkpointing import reader
from cdm.config import loader
from cdm.data import synthetic
from cdm.reporting import image_files, metric_writer

CASCADE = smoke_runs.CONFIGS / 'smoke_cascade.py'
NUM = 6
BATCH = 2


def sample(out, *words, num=NUM, batch_size=BATCH):
  """Runs `cdm sample` of the trained cascade into `out`."""
  return smoke_runs.cdm(
    'sample', f'--config={CASCADE}', f'--workdir={smoke_runs.trained()}',
    f'--out={out}', f'--num={num}', f'--batch_size={batch_size}', *words,
  )  # fmt: skip


def read(path):
  """-> uint8 array of a picture, read by Pillow as it is."""
  with Image.open(path) as image:
    assert image.mode == 'RGB'
    return np.asarray(image)


def stack(folder):
  """-> uint8 [N, H, W, 3], the pictures of a folder in order."""
  return np.stack([read(path) for path in sorted(folder.glob('*.png'))])


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
  out = tmp_path_factory.mktemp('samples')
  assert sample(out) == 0
  return out


@pytest.fixture(scope='module')
def held_out(tmp_path_factory):
  out = tmp_path_factory.mktemp('held_out')
  assert smoke_runs.cdm(
    'upscale', f'--workdir={smoke_runs.trained() / "sr"}', '--held_out=4',
    f'--out={out}',
  ) == 0  # fmt: skip
  return out


# Training.


@pytest.mark.parametrize('stage', ['base', 'sr'])
def test_a_run_leaves_its_config_record_checkpoints_and_pictures(stage):
  workdir = smoke_runs.trained() / stage
  saved = loader.from_json(
    (workdir / 'config.json').read_text(encoding='utf-8'), workdir
  )
  assert saved.model.features == smoke_runs.SMALL['model.features']
  assert reader.read_config(workdir) == (workdir / 'config.json').read_text(
    encoding='utf-8'
  )
  assert reader.complete_steps(workdir) == [2, 4]
  rows = metric_writer.read_scalars(workdir / 'scalars.jsonl')
  logged = [row for row in rows if 'loss' in row]
  assert [row['step'] for row in logged] == [3, 4]
  assert all(0 < row['loss'] < 10 and row['grad_norm'] > 0 for row in logged)
  evaluated = {k: row[k] for row in rows for k in row if 'held_out' in k}
  assert [row['step'] for row in rows] == {
    'base': [3, 4, 4],
    'sr': [3, 4, 4, 4],
  }[stage]
  assert 0 < evaluated['held_out/ema_loss'] < 10
  assert ('held_out/psnr_bicubic' in evaluated) == (stage == 'sr')
  metric = {'base': 'held_out/ema_loss', 'sr': 'held_out/psnr'}[stage]
  assert reader.read_best(workdir) == {
    'step': 4,
    'metric': metric,
    'value': evaluated[metric],
  }
  assert json.loads((workdir / 'classes.json').read_text(encoding='utf-8')) == [
    f'grating {n}' for n in range(4)
  ]
  # Four samples in a row; of super-resolution, two rows of them, at the level
  # of the cascade and at the largest, between its input and truth.
  rows, size = {'base': (1, 8), 'sr': (4, 16)}[stage]
  grid = read(workdir / 'grids' / 'samples_00000004.png')
  assert grid.shape[0] >= rows * size and grid.shape[1] >= 4 * size
  assert grid.shape[0] < (rows + 1) * size


def test_tensorboard_holds_what_the_record_holds():
  tf = pytest.importorskip('tensorflow')
  workdir = smoke_runs.trained() / 'base'
  (events,) = (workdir / 'tensorboard').glob('events.out.tfevents.*')
  seen, images = {}, []
  for event in tf.compat.v1.train.summary_iterator(str(events)):
    for value in event.summary.value:
      if value.HasField('image'):
        images.append((event.step, value.tag))
      else:
        seen[event.step, value.tag] = value.simple_value
  for row in metric_writer.read_scalars(workdir / 'scalars.jsonl'):
    for name in row.keys() - {'step'}:
      assert seen[row['step'], name] == pytest.approx(row[name], rel=1e-6)
  assert [step for step, _ in images] == [4]


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_prepared_shards_train_as_their_originals_do(tmp_path):
  pytest.importorskip('array_record')
  for n in range(20):
    folder = tmp_path / 'files' / f'class{n % 2}'
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(n)
    pixels = rng.integers(0, 256, (11 + n % 3, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f'{n}.jpg')
  assert smoke_runs.cdm(
    'prepare', f'--source={tmp_path / "files"}', '--size=8',
    f'--out={tmp_path / "shards"}',
  ) == 0  # fmt: skip
  records = []
  for kind, place in (('folder', 'files'), ('array_records', 'shards')):
    smoke_runs.train(
      'smoke',
      tmp_path / kind,
      train_data__kind=kind,
      train_data__path=tmp_path / place,
      model__num_classes=2,
      pipeline__flip=True,
      train__log_every_steps=1,
      train__sample_every_steps=0,
    )
    records.append(smoke_runs.record(tmp_path / kind))
  assert len(records[0]) == 4
  assert records[0] == records[1]
  assert records[0] != smoke_runs.record(smoke_runs.trained() / 'base')


# Sampling.


def test_samples_are_pictures_and_the_archive_of_the_adm_evaluator(samples):
  base, sr = stack(samples / 'base'), stack(samples / 'sr')
  assert base.shape == (NUM, 8, 8, 3) and sr.shape == (NUM, 16, 16, 3)
  with np.load(samples / 'samples.npz') as archive:
    assert set(archive) == {'arr_0', 'arr_1'}
    np.testing.assert_array_equal(archive['arr_0'], sr)
    assert archive['arr_0'].dtype == np.uint8
    assert archive['arr_1'].tolist() == [0, 1, 2, 3, 0, 1]
  names = sorted(path.name for path in (samples / 'sr').iterdir())
  assert names == [f'{n:06d}.png' for n in range(NUM)]


def test_a_picture_of_the_cascade_belongs_to_its_small_one(samples):
  """The stage adds a residual to its input, so means agree; others' do not."""
  small = stack(samples / 'base').astype(float).mean(axis=(1, 2))  # [N, 3]
  large = stack(samples / 'sr').astype(float).mean(axis=(1, 2))
  distance = np.linalg.norm(small[:, None] - large[None], axis=-1)  # [N, N]
  own = np.diag(distance)
  others = distance[~np.eye(NUM, dtype=bool)]
  assert own.mean() < 0.5 * others.mean(), (own, others)


def test_the_recipe_names_all_that_the_samples_depend_on(samples):
  recipe = json.loads((samples / 'sampling.json').read_text(encoding='utf-8'))
  assert recipe['seed'] == 0 and recipe['labels'] == [0, 1, 2, 3]
  assert [s['name'] for s in recipe['stages']] == ['base', 'sr']
  assert [s['checkpoint'] for s in recipe['stages']] == [4, 4]
  assert [s['level'] for s in recipe['stages']] == [0.0, 0.1]
  assert recipe['stages'][0]['sampler']['kind'] == 'ddim'


def test_the_overview_shows_every_sample_beside_its_small_one(samples):
  """Four classes in rows; of class 0 the images 0 and 4."""
  overview = read(samples / 'samples.png')
  windows = np.lib.stride_tricks.sliding_window_view(overview, (64, 64, 3))
  windows = windows[:, :, 0]  # [y, x, 64, 64, 3]
  for n in range(NUM):
    for stage, factor in (('base', 8), ('sr', 4)):
      x = read(samples / stage / f'{n:06d}.png')
      x = x.repeat(factor, axis=0).repeat(factor, axis=1)
      near = (windows[..., 0, 0, :] == x[0, 0]).all(axis=-1)
      places = [p for p in np.argwhere(near) if (windows[tuple(p)] == x).all()]
      assert len(places) == 1, (stage, n)


def test_sampling_again_draws_nothing_and_changes_nothing(
  samples, capsys, monkeypatch
):
  before = smoke_runs.snapshot(samples)

  def fail(*_):
    raise AssertionError('something was drawn')

  monkeypatch.setattr('cdm.sampling.generate.draw_missing', fail)
  assert sample(samples) == 0
  assert f'{NUM} of {NUM} are already' in capsys.readouterr().out
  assert smoke_runs.snapshot(samples) == before


def test_interrupted_sampling_continues_to_the_same_bytes(
  samples, tmp_path, monkeypatch, capsys
):
  """Stopped while a picture is written; then two are lost besides."""
  written = []
  write = image_files.write_png

  def stopped(path, image):
    written.append(path)
    if len(written) == 7:
      raise KeyboardInterrupt
    write(path, image)

  with monkeypatch.context() as patch:
    patch.setattr(image_files, 'write_png', stopped)
    assert sample(tmp_path) == 130
  assert 'stopped by Ctrl-C' in capsys.readouterr().err
  assert not (tmp_path / 'samples.npz').exists()
  drawn = smoke_runs.snapshot(tmp_path, '*/*.png')
  assert len(drawn) == 6
  (tmp_path / 'base' / '000000.png').unlink()
  assert sample(tmp_path) == 0
  mine, expected = smoke_runs.snapshot(tmp_path), smoke_runs.snapshot(samples)
  del mine['sessions.jsonl'], expected['sessions.jsonl']
  assert mine.keys() == expected.keys()
  assert [name for name in mine if mine[name] != expected[name]] == []


@pytest.fixture(scope='module')
def two_classes(tmp_path_factory):
  """Drawn four at once; images 0 and 1 have the labels that they had."""
  out = tmp_path_factory.mktemp('two_classes')
  assert sample(out, '--labels=0,1', num=4, batch_size=4) == 0
  return out


def test_the_batch_size_does_not_change_the_pictures(samples, two_classes):
  for stage in ('base', 'sr'):
    a, b = stack(samples / stage)[:2], stack(two_classes / stage)[:2]
    assert np.abs(a.astype(int) - b).max() <= 1  # a sum rounded otherwise


def test_labels_are_drawn_in_turn_and_matter(samples, two_classes):
  with np.load(two_classes / 'samples.npz') as archive:
    assert archive['arr_1'].tolist() == [0, 1, 0, 1]
  a, b = stack(samples / 'base')[2:4], stack(two_classes / 'base')[2:]
  assert (np.abs(a.astype(int) - b).reshape(2, -1).max(axis=1) > 1).all()


def test_samples_of_another_manifest_are_not_mixed_in(samples, capsys):
  before = smoke_runs.snapshot(samples)
  assert sample(samples, '--seed=1') == 2
  message = capsys.readouterr().err
  assert 'holds images of another manifest: seed is 0 there, 1 now' in message
  assert smoke_runs.snapshot(samples) == before


# Super-resolution.


def test_held_out_images_are_shrunk_magnified_and_kept(held_out):
  truth = synthetic.Synthetic(16, num_images=64, num_classes=4, seed=1)
  original = stack(held_out / 'original')
  for n, image in enumerate(original):
    # One of each quarter of the 64 evaluation images.
    quarter = [truth[i]['image'] for i in range(n * 16, n * 16 + 16)]
    assert sum(np.array_equal(image, one) for one in quarter) == 1
  # The config's filter is area: means of 2x2, rounded half up.
  means = original.reshape(4, 8, 2, 8, 2, 3).mean(axis=(2, 4))
  low = stack(held_out / 'lowres')
  assert np.abs(low - np.floor(means + 0.5)).max() <= 1
  assert (low == np.floor(means + 0.5)).mean() > 0.99
  for image, smooth in zip(low, stack(held_out / 'bicubic'), strict=True):
    pillow = Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(pillow, int) - smooth).max() <= 2
  assert stack(held_out / 'upscaled').shape == original.shape
  assert read(held_out / 'upscaled.png').shape[1] > 4 * 96


def test_files_of_the_input_size_and_larger_are_magnified(tmp_path, capsys):
  rng = np.random.default_rng(0)
  sizes = {'one': (8, 8), 'wide': (9, 20), 'grey': (8, 12)}
  for name, size in sizes.items():
    shape = size if name == 'grey' else (*size, 3)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f'{name}.png')
  files = [tmp_path / f'{name}.png' for name in sizes]
  out = tmp_path / 'out'
  words = ['upscale', f'--workdir={smoke_runs.trained() / "sr"}']
  to = f'--out={out}'
  assert smoke_runs.cdm(*words, to, *files, '--label=grating 2') == 0
  for name in ('one', 'wide'):
    h, w = sizes[name]
    assert read(out / f'{name}.png').shape == (2 * h, 2 * w, 3)
  with Image.open(out / 'grey.png') as grey:
    assert (grey.mode, grey.size) == ('L', (24, 16))
  # A picture depends on itself alone, not on those beside it.
  alone = f'--out={tmp_path / "alone"}'
  words += [alone, '--label=2', '--batch_size=3']
  assert smoke_runs.cdm(*words, files[0]) == 0
  again = read(tmp_path / 'alone' / 'one.png').astype(int)
  assert np.abs(again - read(out / 'one.png')).max() <= 1


# Judging.


@pytest.fixture(scope='module')
def row(held_out, tmp_path_factory):
  path = tmp_path_factory.mktemp('row') / 'deeper' / 'row.json'
  assert smoke_runs.cdm(
    'evaluate', f'--samples={held_out / "upscaled"}',
    f'--reference={held_out / "original"}', f'--lowres={held_out / "lowres"}',
    '--downsample=area', f'--out={path}',
  ) == 0  # fmt: skip
  return path


def test_the_row_has_the_psnr_of_the_files(held_out, row):
  values = json.loads(row.read_text(encoding='utf-8'))
  made = stack(held_out / 'upscaled').astype(float)
  error = (made - stack(held_out / 'original')) ** 2
  psnr = 10 * np.log10(255**2 / error.mean(axis=(1, 2, 3)))
  assert values['psnr'] == pytest.approx(psnr.mean(), abs=1e-9)
  # What bicubic gives is shrunk back to nearly what it was made from.
  assert values['bicubic']['psnr'] > 15
  assert values['bicubic']['consistency'] < 1e-3


def test_the_report_is_one_page_that_needs_nothing_else(
  samples, held_out, row, tmp_path, capsys
):
  workdir = smoke_runs.trained()
  assert smoke_runs.cdm(
    'report', f'--run={workdir / "base"}', f'--run={workdir / "sr"}',
    f'--samples={samples}', f'--upscaled={held_out}', f'--row={row}',
    f'--out={tmp_path}', '--title=A <b>title</b>',
  ) == 0  # fmt: skip
  table = capsys.readouterr().out
  assert re.search(r'^smoke_sr +8 -> 16 +4/4 ', table, re.MULTILINE)
  html = (tmp_path / 'report.html').read_text(encoding='utf-8')
  links = re.findall(r'(?:src|href)\s*=\s*["\']?([^"\'>\s]{0,30})', html)
  assert links and all(
    link.startswith('data:image/png;base64') for link in links
  )
  assert 'url(' not in html and '@import' not in html and '<script' not in html
  assert 'A &lt;b&gt;title' in html and '<b>title' not in html
  facts = json.loads((tmp_path / 'report.json').read_text(encoding='utf-8'))
  assert [run['name'] for run in facts['runs']] == ['smoke', 'smoke_sr']
  rows = metric_writer.read_scalars(workdir / 'sr' / 'scalars.jsonl')
  assert (
    facts['runs'][1]['loss'] == [r['loss'] for r in rows if 'loss' in r][-1]
  )
  assert facts['runs'][1]['seconds'] > 0
  assert facts['quality'] == json.loads(row.read_text(encoding='utf-8'))
  for name, folder in (('samples', samples), ('upscaled', held_out)):
    copy = (tmp_path / f'{name}.png').read_bytes()
    assert copy == (folder / f'{name}.png').read_bytes()
