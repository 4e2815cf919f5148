"""Every form of data, from its small file to a trained and judged run.

One compiled program serves the forms with four classes, and one the others.
"""

import json

import numpy as np
import pytest
from support import linear_features, smoke_runs, tfrecord_sets
from support import small_archives as small

from cdm.config import datasets, recognized_source
from cdm.data import array_record, transforms

pytest.importorskip('array_record')
LABELS = [0, 1, 2, 3, 1, 0, 3, 2]
SYNSETS = ('n01440764', 'n01443537', 'n01484850', 'n01491361')
CONFIG = smoke_runs.CONFIGS / 'smoke.py'


def write_folder(folder):
  for n, label in enumerate(LABELS):
    place = folder / 'pictures' / SYNSETS[label]
    place.mkdir(parents=True, exist_ok=True)
    (place / f'{n}.png').write_bytes(small.png(n))
  return folder / 'pictures'


def write_dataset_json(folder):
  for name, data in small.edm_members(LABELS).items():
    (folder / 'set' / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / 'set' / name).write_bytes(data)
  return folder / 'set'


def write_batches(folder):
  numbers = [label + 1 for label in LABELS]
  return small.write_npz_batches(folder, [numbers[:5], numbers[5:]])


def write_parquet(folder):
  pa = pytest.importorskip('pyarrow')
  pq = pytest.importorskip('pyarrow.parquet')
  columns = {
    'image': {'_type': 'Image'},
    'label': {'_type': 'ClassLabel', 'names': list(SYNSETS)},
  }
  images = [{'bytes': small.jpeg(n), 'path': None} for n in range(len(LABELS))]
  table = pa.table({'image': images, 'label': pa.array(LABELS, pa.int64())})
  text = json.dumps({'info': {'features': columns}})
  table = table.replace_schema_metadata({b'huggingface': text.encode()})
  (folder / 'data').mkdir()
  pq.write_table(table, folder / 'data' / 'train-00000-of-00001.parquet')
  return folder


def write_lmdb(folder):
  lmdb = pytest.importorskip('lmdb')
  path = folder / 'faces.lmdb'
  with lmdb.open(str(path), map_size=1 << 24) as environment:
    with environment.begin(write=True) as transaction:
      transaction.put(b'length', b'8')
      for n in range(8):
        transaction.put(b'hr_8_%05d' % n, small.png(n))
  return path


def write_tfrecords(folder):
  images = [
    (small.jpeg(n), label + 1, SYNSETS[label], f'{SYNSETS[label]}_{n}.JPEG')
    for n, label in enumerate(LABELS)
  ]
  return tfrecord_sets.slim(folder, images)


def write_archive(folder):
  images = np.stack([small.square(n) for n in range(len(LABELS))])
  path = folder / 'samples.npz'
  np.savez(path, arr_0=images, arr_1=np.array(LABELS))
  return path


FORMS = {
  'folder': write_folder,
  'dataset_json': write_dataset_json,
  'zip': lambda folder: small.write_zip(
    folder / 'set.zip', small.edm_members(LABELS)
  ),
  'webdataset': lambda folder: small.write_webdataset(folder, LABELS, 3),
  'imagenet_tar': lambda folder: small.write_imagenet_train(
    folder / 'ILSVRC2012_img_train.tar', SYNSETS
  ),
  'npz_batches': write_batches,
  'archive': write_archive,
  'parquet': write_parquet,
  'tfrecords': write_tfrecords,
  'lmdb': write_lmdb,
}


@pytest.fixture(scope='module', params=FORMS)
def form(request, tmp_path_factory):
  """-> (section of a config that reads the small file, its folder)."""
  folder = tmp_path_factory.mktemp(request.param)
  path = str(FORMS[request.param](folder))
  section = recognized_source.section(path, datasets.SOURCES)
  kind = {'dataset_json': 'folder'}.get(request.param, request.param)
  assert section == {'kind': kind, 'path': path}
  return section, tmp_path_factory.mktemp(f'{request.param}-out')


def overrides(section):
  keys = {}
  for name in ('train_data', 'eval_data'):
    keys |= {f'{name}.{key}': value for key, value in section.items()}
  if section['kind'] == 'lmdb':
    keys |= {'model.num_classes': None, 'model.null_class': False}
    keys['method.label_dropout'] = 0.0
  return keys


def test_a_prepared_form_has_the_pixels_and_labels_of_its_source(form):
  section, out = form
  source = datasets.open_source(section)
  assert len(source) == 8
  for payload in ('raw', 'png'):
    words = f'--source={section["path"]}', f'--payload={payload}'
    place = f'--out={out / payload}'
    assert smoke_runs.cdm('prepare', *words, '--size=8', place, '--verify') == 0
    prepared = array_record.ArrayRecords(out / payload)
    assert prepared.class_names == source.class_names
    for i in range(8):
      expected = transforms.fit(source[i]['image'], size=8)
      np.testing.assert_array_equal(prepared[i]['image'], expected)
      assert prepared[i]['label'] == source[i]['label']


def test_ten_steps_are_trained_and_judged_on_every_form(
  form, tmp_path, monkeypatch
):
  """And the pictures that are judged are those of the prepared copy."""
  section, out = form
  given = {
    'train.num_steps': 10,
    'train.save_every_steps': 10,
    'train.sample_every_steps': 0,
    'eval.every_steps': 10,
    'eval.batches': 1,
    **overrides(section),
  }
  smoke_runs.train('smoke', out / 'run', **given)
  rows = smoke_runs.record(out / 'run')
  assert max(row['step'] for row in rows) == 10
  (held_out,) = (row['held_out/loss'] for row in rows if 'held_out/loss' in row)
  assert np.isfinite(held_out)
  place = linear_features.prepared(tmp_path, monkeypatch)
  words = [f'--config.train_data.{k}={v}' for k, v in section.items()]
  assert smoke_runs.cdm(
    'evaluate', f'--samples={CONFIG}:train', f'--reference={out / "raw"}',
    '--metrics=fid', '--few', f'--weights={place / "w.pth"}',
    f'--out={tmp_path / "row.json"}', *words,
  ) == 0  # fmt: skip
  row = json.loads((tmp_path / 'row.json').read_text(encoding='utf-8'))
  assert row['samples_recipe']['count'] == row['reference_recipe']['count'] == 8
  assert abs(row['fid']) < 1e-3
