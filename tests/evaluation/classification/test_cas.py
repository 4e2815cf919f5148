"""The classification accuracy score, through the front door and in small."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import smoke_runs
from support.declared import assert_declared

from cdm.config import placement
from cdm.data import synthetic
from cdm.evaluation import result_line, row_types
from cdm.evaluation.classification import cas, trained_classifier
from cdm.sampling.cascade import Stage

CONFIG = smoke_runs.CONFIGS / 'smoke_cas.py'
CLASSES = [f'grating {n}' for n in range(4)]


def score(workdir, *words, config=CONFIG):
  with smoke_runs.on(1):
    return smoke_runs.cdm(
      'cas', f'--config={config}', f'--workdir={workdir}', *words
    )


def row(workdir):
  return json.loads((workdir / 'row.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def real():
  """-> work directory of the score of real images."""
  workdir = smoke_runs.temporary() / 'real'
  assert score(workdir, '--config.train.num_steps=24') == 0
  return workdir


def test_a_classifier_of_real_images_knows_them(real):
  found = row(real)
  assert found['cas_top1'] > 80.0 and found['cas_top5'] == 100.0
  assert (found['n'], found['trained_on'], found['classes']) == (64, 256, 4)
  low, high = found['intervals']['cas_top1']
  assert low <= found['cas_top1'] <= high
  assert found['classifier']['checkpoint'] == 24
  assert_declared(found, row_types.CasRow)
  assert_declared(found['classifier'], row_types.ClassifierManifest)
  for name in ('samples_recipe', 'reference_recipe'):
    assert_declared(found[name], row_types.ImageManifest)
  assert not found['warnings']
  assert found['samples_recipe']['data']['kind'] == 'synthetic'
  line = (real / 'row.md').read_text(encoding='utf-8')
  assert 'trained on 256 images: smoke_cas:train; tested on 64' in line
  assert not list(real.glob('ranks-*'))


def test_a_second_start_gives_the_same_row(real, capsys):
  before = (real / 'row.json').read_bytes()
  assert score(real, '--config.train.num_steps=24') == 0
  assert (real / 'row.json').read_bytes() == before
  assert 'the run is complete' in capsys.readouterr().err


def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path):
  for name, stops in (('whole', [8]), ('parts', [4, 8])):
    for steps in stops:
      with smoke_runs.on(1):
        code = smoke_runs.cdm(
          'train',
          f'--config={CONFIG}',
          f'--workdir={tmp_path / name}',
          f'--config.train.num_steps={steps}',
        )
      assert code == 0
  whole, parts = (smoke_runs.state(tmp_path / n, 8) for n in ('whole', 'parts'))
  assert whole.keys() == parts.keys() and len(whole) > 20
  for name, value in whole.items():
    np.testing.assert_array_equal(parts[name], value, err_msg=name)


def stages():
  """A cascade whose images are true gratings of their class."""
  true = synthetic.Synthetic(16, 64, 4)
  pictures = jnp.asarray(np.stack([true[i]['image'] for i in range(4)]))

  def sample(params, *, keys, label, **_):
    shift = jax.vmap(lambda key: jax.random.randint(key, (), 0, 16))(keys)
    x = pictures[label] / 127.5 - 1.0
    return jax.vmap(lambda x, n: jnp.roll(x, n, axis=0))(x, shift)

  return [Stage('base', 16, sample, jnp.float32(1.0), num_classes=4)]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
  """-> WHAT of a trained cascade."""

  def restored(loaded, workdir, at=None, redraws=()):
    note = {'name': 'base', 'folder': 'base', 'checkpoint': 4, 'sampler': {}}
    return stages(), [note]

  monkeypatch.setattr(cas.restore, 'restored_cascade', restored)
  folder = tmp_path / 'runs' / 'base'
  folder.mkdir(parents=True)
  (folder / 'classes.json').write_text(json.dumps(CLASSES), encoding='utf-8')
  return f'{smoke_runs.CONFIGS / "smoke_cascade.py"}@{tmp_path / "runs"}'


def test_a_cascade_is_drawn_and_scored(tmp_path, drawn, capsys):
  workdir = tmp_path / 'w'
  words = (f'--samples={drawn}', '--num=64', '--batch_size=16')
  assert score(workdir, *words) == 0
  found = row(workdir)
  assert found['cas_top1'] > 40.0  # chance is 25
  assert found['trained_on'] == 64 and not found['warnings']
  assert found['samples_recipe']['sampling']['seed'] == 0
  assert 'CAS top-1 (%) ' in capsys.readouterr().out
  assert score(workdir, *words) == 0
  assert row(workdir) == found
  archive = workdir / 'samples' / 'samples.npz'
  with np.load(archive) as held:
    assert held['arr_1'].tolist() == [0, 1, 2, 3] * 16
  # A work directory is of one set.
  assert score(workdir) == 2
  assert 'holds the score of another set' in capsys.readouterr().err
  wrong = '--config.model.num_classes=3'
  assert score(tmp_path / 'u', *words, wrong) == 2
  assert not (tmp_path / 'u').exists()  # refused before it was drawn
  assert 'config.model.num_classes is 3, but' in capsys.readouterr().err
  assert score(tmp_path / 'v', f'--samples={drawn}') == 2
  assert 'give --num, the number of samples' in capsys.readouterr().err


def test_samples_in_shards_are_trained_on_as_those_in_an_archive(
  tmp_path, drawn, monkeypatch, capsys
):
  """Many samples become shards, which the training and the test read."""
  pytest.importorskip('array_record')
  words = (f'--samples={drawn}', '--num=64', '--batch_size=16')
  rows = []
  for name, most in (('archive', 64), ('shards', 63)):
    monkeypatch.setattr(cas.sample_storage, 'MOST_PNGS', most)
    assert score(tmp_path / name, *words) == 0
    rows.append(row(tmp_path / name))
  assert (
    'ArrayRecord shards (64 images are more than' in capsys.readouterr().out
  )
  archive, shards = rows
  assert shards['cas_top1'] == archive['cas_top1']
  assert shards['samples_recipe']['data']['kind'] == 'array_records'
  assert shards['samples_recipe']['sampling']['seed'] == 0
  files = {path.name for path in (tmp_path / 'shards' / 'samples').iterdir()}
  assert 'samples.npz' not in files and 'samples.png' in files


def test_statistics_are_of_the_training_data(real, monkeypatch):
  """A network that is tested with others' statistics is another one."""
  loaded = cas.loader.load(CONFIG)
  data = cas.datasets.open_source(loaded.train_data)
  images = np.stack([data[i]['image'] for i in range(8)])
  with smoke_runs.on(1):
    network, step = trained_classifier.restore(loaded, real, data, batch_size=8)
    again, _ = trained_classifier.restore(loaded, real, data, batch_size=8)
    dark = synthetic.Synthetic(16, 256, 4)
    true = synthetic.Synthetic.__getitem__
    monkeypatch.setattr(
      synthetic.Synthetic,
      '__getitem__',
      lambda self, i: true(self, i) | {'image': true(self, i)['image'] // 8},
    )
    other, _ = trained_classifier.restore(loaded, real, dark, batch_size=8)
  assert step == 24
  np.testing.assert_array_equal(network(images), again(images))
  assert np.abs(network(images) - other(images)).max() > 0.1


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (('--num=3',), '--num is for drawn samples'),
    (('--samples=x.npz', '--seed=3'), '--seed is for drawn samples'),
    (('--batch_size=0',), '--batch_size=0: it must be at least 1'),
    (('--samples=nowhere',), 'nowhere is not a labelled set'),
    (('--config.train.accumulation=2',), 'it normalises by the whole batch'),
    (('--config.train.num_samples=2',), 'of a classifier it is 0: it draws'),
    (
      ('--config.method.size=17',),
      'method.size is 17 but images have 16 pixels',
    ),
    (('--config.model.num_classes=3',), 'is 3, but the data has 4 classes'),
    (('--config.optimizer.kind=adam',), 'lacks'),
  ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, words, message, capsys):
  assert score(tmp_path / 'w', *words) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (('cas', '--config=configs/smoke.py'), "'smoke' is not a classifier"),
    (('cas', '--config=configs/smoke_cascade.py'), 'is not a classifier'),
    (('sample', '--config=configs/smoke_cas.py'), 'which draws no images'),
  ],
)
def test_configs_of_the_other_kind_are_refused(real, words, message, capsys):
  command, config = words
  config = config.replace('configs/', f'{smoke_runs.CONFIGS}/')
  assert smoke_runs.cdm(command, config, f'--workdir={real}') == 2
  assert message in capsys.readouterr().err


def test_a_run_has_a_page_but_its_score_is_no_row_of_pairs(
  real, tmp_path, capsys
):
  words = (f'--run={real}', f'--out={tmp_path}')
  assert smoke_runs.cdm('report', *words) == 0
  assert smoke_runs.cdm('report', *words, f'--row={real / "row.json"}') == 2
  assert 'has no paired metrics' in capsys.readouterr().err


def test_the_card_names_the_number_of_the_paper():
  given = {
    'samples': 'A',
    'reference': 'B',
    'trained_on': 1000,
    'n': 50_000,
    'cas_top1': 59.837,
    'cas_top5': 81.0,
    'intervals': {},
    'paper': {'cas_top1': 59.84, 'cas_top5': 81.79},
  }
  assert result_line.line(given) == (
    '- **CAS top-1 (%) 59.84 (paper: cas_top1 59.84)**; '
    '**CAS top-5 (%) 81.00 (paper: cas_top5 81.79)**; '
    'trained on 1,000 images: A; tested on 50,000 images: B'
  )


def test_every_batch_of_the_statistics_has_crops_of_its_own():
  """Of a network that says what it draws: the variance is that of the draws."""
  loaded = cas.loader.load(CONFIG)

  def moments(params, batch, *, key):
    draw = jax.random.normal(key)
    return {'mean': draw, 'square': draw**2}

  built = types.SimpleNamespace(
    tester=types.SimpleNamespace(moments=moments),
    objective=types.SimpleNamespace(statistics_batches=16),
    boxes=lambda params: lambda tree: tree,  # nothing is split
  )
  with smoke_runs.on(1):
    mesh = placement.mesh(loaded.mesh)
  found = trained_classifier.gather_statistics(
    loaded, built, {}, mesh, cas.datasets.open_source(loaded.train_data)
  )
  assert 0.2 < found['var'] < 3.0
