"""The real imagenet2012 builder, offline, from tars of small JPEGs."""

import importlib.util
import io
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import types

import numpy as np
import pytest
from PIL import Image

from cdm.data import convert_tfrecord, pipeline, subset
from cdm.data import tfds as data_tfds
from cdm.data.files import damaged_file
from cdm.models.pretrained import imagenet_classes

pytest.importorskip('tensorflow')  # to build; reading needs none
tfds = pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

ROOT = pathlib.Path(__file__).resolve().parents[2]
# tench, goldfish, and the last of the 1000 in sorted order: toilet tissue.
WNIDS = {'n01440764': 0, 'n01443537': 1, 'n15075141': 999}
# ILSVRC2012_val_00000001 ... 5, as everybody numbers them.
VALIDATION = [65, 970, 230, 809, 516]
TRUNCATED = 'n01443537_2.JPEG'


def jpeg(value):
  """60 x 40 pixels of one grey."""
  file = io.BytesIO()
  Image.new('RGB', (60, 40), (value, value, value)).save(file, 'JPEG')
  return file.getvalue()


def add(tar, name, data):
  info = tarfile.TarInfo(name)
  info.size = len(data)
  tar.addfile(info, io.BytesIO(data))


def write_tars(folder):
  """As image-net.org has them: training, a tar per class inside the tar."""
  folder.mkdir(parents=True)
  with tarfile.open(folder / 'ILSVRC2012_img_train.tar', 'w') as tar:
    for wnid, label in WNIDS.items():
      inside = io.BytesIO()
      with tarfile.open(fileobj=inside, mode='w') as inner:
        for i in range(8):
          name, data = f'{wnid}_{i}.JPEG', jpeg(label % 200 + 5 * i)
          add(inner, name, data[:-300] if name == TRUNCATED else data)
      add(tar, f'{wnid}.tar', inside.getvalue())
  with tarfile.open(folder / 'ILSVRC2012_img_val.tar', 'w') as tar:
    for i in range(5):
      add(tar, f'ILSVRC2012_val_{i + 1:08d}.JPEG', jpeg(40 * i))


def run_command_of(error):
  """Runs the command at the end of an error message, as it stands there."""
  command = str(error.value).rpartition(' with: ')[2]
  assert shlex.split(command)[0] == sys.executable
  subprocess.run(command, shell=True, check=True, capture_output=True)


BUILD_TFRECORD = """
import sys, tensorflow_datasets as tfds
tfds.builder('imagenet2012', data_dir=sys.argv[1]).download_and_prepare()
"""


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """imagenet2012 as our own error message says to build it."""
  root = tmp_path_factory.mktemp('tfds')
  write_tars(root / 'downloads' / 'manual')
  with pytest.raises(
    ValueError, match='not prepared: .*ILSVRC2012_img_train.t'
  ) as error:
    data_tfds.Tfds('imagenet2012', 'train', data_dir=root)
  run_command_of(error)
  return root


@pytest.fixture(scope='module')
def tfrecords(data_dir, tmp_path_factory):
  """imagenet2012 as TFRecord files."""
  root = tmp_path_factory.mktemp('tfrecords')
  shutil.copytree(data_dir / 'downloads', root / 'downloads')
  subprocess.run(
    [sys.executable, '-c', BUILD_TFRECORD, root],
    check=True,
    capture_output=True,
  )
  return root


def test_imagenet_trains_from_its_tars(data_dir, caplog):
  """Every image once per epoch, area-averaged, with its sorted-wnid label."""
  source = data_tfds.Tfds('imagenet2012', 'train', data_dir=data_dir)
  assert len(source) == 24 and source.num_classes == 1000
  assert list(source.class_names) == sorted(source.class_names)
  iterator = pipeline.make_iterator(
    source,
    pipeline.PipelineOptions(image_size=32, flip=True, max_skip_fraction=0.2),
    batch_size=8,
    seed=0,
  )
  grey = {label: [] for label in WNIDS.values()}
  for _ in range(3):
    batch = next(iterator)
    assert batch['image'].shape == (8, 32, 32, 3)
    for image, label in zip(batch['image'], batch['label'], strict=True):
      grey[int(label)].append(int(image[16, 16, 0]))
  # The grey says which file it was; one class lacks the truncated one.
  for label, values in grey.items():
    expected = {label % 200 + 5 * i for i in range(8)}
    if label == WNIDS[TRUNCATED.split('_')[0]]:
      expected -= {label % 200 + 10}
    nearest = {min(expected, key=lambda e, v=v: abs(e - v)) for v in values}
    assert nearest == expected
    assert all(min(abs(e - v) for e in expected) <= 1 for v in values)
  assert caplog.text.count('Skipped imagenet2012/5.1.0/train') == 1
  assert re.search(f'{TRUNCATED}: .*cut off', caplog.text)


def test_a_rotation_that_is_not_applied_is_another_fingerprint(data_dir):
  where = ('imagenet2012', 'train', data_dir)
  before, applied, ignored = (
    data_tfds.Tfds(*where, **options).fingerprint
    for options in ({}, {'exif_rotation': True}, {'exif_rotation': False})
  )
  assert before == applied != ignored


def test_validation_labels_are_the_published_ones(data_dir):
  source = data_tfds.Tfds('imagenet2012', 'validation', data_dir=data_dir)
  by_grey = {}
  for i in range(len(source)):
    element = source[i]
    by_grey[round(int(element['image'].mean()) / 40)] = int(element['label'])
  assert [by_grey[i] for i in range(5)] == VALIDATION


def test_the_first_validation_images_are_found_by_their_file_names(data_dir):
  source = data_tfds.Tfds('imagenet2012', 'validation', data_dir=data_dir)
  labels = [int(source[i]['label']) for i in subset.first_validation(source, 5)]
  assert labels == VALIDATION
  assert (
    subset.first_validation(source, 2) == subset.first_validation(source, 5)[:2]
  )
  training = data_tfds.Tfds('imagenet2012', 'train', data_dir=data_dir)
  assert (
    subset.first_validation(training, 2) is None
  )  # n01440764_0.JPEG and the like
  assert source.class_names == imagenet_classes.WORDNET_IDS


def test_building_without_tensorflow_names_what_exists_for_this_python(
  tmp_path, monkeypatch
):
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: None if name == 'tensorflow' else found(name),
  )
  install = data_tfds.shell_commands.install('cdm[tensorflow]')
  for first, advice in ((99,), install), ((3, 0), 'with Python 3.13 and read'):
    monkeypatch.setattr(data_tfds, '_NO_TENSORFLOW', first)
    with pytest.raises(ValueError, match='needs TensorFlow.* Build it') as told:
      data_tfds.Tfds('cifar10', 'train', data_dir=tmp_path)
    assert advice in str(told.value)


def test_the_pythons_without_tensorflow_are_those_of_the_project():
  text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
  version = '.'.join(map(str, data_tfds._NO_TENSORFLOW))
  assert (
    re.findall("tensorflow.*python_version < '(.*?)'", text) == [version] * 2
  )


def test_splits_can_be_sliced_and_worker_processes_read_them(data_dir):
  source = data_tfds.Tfds('imagenet2012', 'validation[:60%]', data_dir=data_dir)
  assert len(source) == 3
  options = pipeline.PipelineOptions(image_size=16)
  workers, threads = (
    pipeline.make_iterator(
      source, options._replace(worker_count=count), batch_size=3, seed=1
    )
    for count in (1, 0)
  )
  mine, expected = next(workers), next(threads)
  workers.close()
  np.testing.assert_array_equal(mine['image'], expected['image'])
  np.testing.assert_array_equal(mine['label'], expected['label'])


def test_tfrecord_is_converted_by_the_command_of_the_error(
  data_dir, tfrecords, tmp_path
):
  shutil.copytree(tfrecords / 'imagenet2012', tmp_path / 'imagenet2012')
  with pytest.raises(ValueError, match='no random access. Convert') as error:
    data_tfds.Tfds('imagenet2012', 'train', data_dir=tmp_path)
  run_command_of(error)
  converted = data_tfds.Tfds('imagenet2012', 'validation', data_dir=tmp_path)
  built = data_tfds.Tfds('imagenet2012', 'validation', data_dir=data_dir)
  for i in range(len(built)):
    np.testing.assert_array_equal(converted[i]['image'], built[i]['image'])
    assert converted[i]['label'] == built[i]['label']
  version = tmp_path / 'imagenet2012' / '5.1.0'
  (version / 'imagenet2012-train.array_record-00000-of-00001').unlink()
  # The second states a length that nothing could hold.
  for data in (b'12', b'\xff' * 7 + b'\x00' * 30):
    path = version / 'imagenet2012-train.tfrecord-00000-of-00001'
    path.write_bytes(data)
    with pytest.raises(ValueError, match='truncated'):
      convert_tfrecord.convert(version)
  info = version / 'dataset_info.json'
  info.write_text(info.read_text(encoding='utf-8')[:100], encoding='utf-8')
  with pytest.raises(damaged_file.DamagedFile, match='info.json is damaged'):
    convert_tfrecord.convert(version)
  with pytest.raises(damaged_file.DamagedFile, match="open 'imagenet2012'"):
    data_tfds.Tfds('imagenet2012', 'train', data_dir=tmp_path)


def change_info(folder, change):
  path = folder / 'dataset_info.json'
  info = json.loads(path.read_text(encoding='utf-8'))
  change(info)
  path.write_text(json.dumps(info), encoding='utf-8')


def forget_format(info):
  del info['fileFormat']


def forget_lengths(info):
  forget_format(info)
  for split in info['splits']:
    split['numShards'] = str(len(split.pop('shardLengths')))


@pytest.mark.parametrize('change', [forget_format, forget_lengths])
def test_an_old_dataset_info_is_converted_too(tfrecords, tmp_path, change):
  """TFDS did not always store the format and the lengths of the shards."""
  shutil.copytree(tfrecords / 'imagenet2012', tmp_path / 'imagenet2012')
  change_info(tmp_path / 'imagenet2012' / '5.1.0', change)
  with pytest.raises(ValueError, match='no random access. Convert') as error:
    data_tfds.Tfds('imagenet2012', 'train', data_dir=tmp_path)
  run_command_of(error)
  assert len(data_tfds.Tfds('imagenet2012', 'train', data_dir=tmp_path)) == 24
  # What a kill left is not converted twice, and is counted.
  change_info(
    tmp_path / 'imagenet2012' / '5.1.0',
    lambda info: (
      [split.pop('shardLengths') for split in info['splits']]
      and [split.update(numShards=1) for split in info['splits']]
    ),
  )
  convert_tfrecord.convert(tmp_path / 'imagenet2012' / '5.1.0')
  assert len(data_tfds.Tfds('imagenet2012', 'train', data_dir=tmp_path)) == 24


@pytest.mark.parametrize('version', ['5.1.0', '2.0.1'])
def test_a_set_without_its_features_gets_them_by_the_command(
  data_dir, tmp_path, version
):
  """Before its version 4, TFDS did not write features.json."""
  place = tmp_path / 'imagenet2012' / version
  shutil.copytree(data_dir / 'imagenet2012' / '5.1.0', place)
  change_info(place, lambda info: info.update(version=version))
  (place / 'features.json').unlink()
  name = f'imagenet2012:{version}'
  with pytest.raises(ValueError, match='before 4 .*start again: ') as error:
    data_tfds.Tfds(name, 'train', data_dir=tmp_path)
  command = str(error.value).rpartition(' again: ')[2]
  subprocess.run(command, shell=True, check=True, capture_output=True)
  assert len(data_tfds.Tfds(name, 'train', data_dir=tmp_path)) == 24


def test_an_older_version_is_named_with_the_config_line_that_uses_it(
  data_dir, tmp_path
):
  """And with what changed, for its labels may be others."""
  for version in ('3.0.0', '5.0.0'):
    place = tmp_path / 'imagenet2012' / version
    shutil.copytree(data_dir / 'imagenet2012' / '5.1.0', place)
    change_info(place, lambda info, v=version: info.update(version=v))
  (tmp_path / 'imagenet2012' / '2.0.0').mkdir()
  with pytest.raises(ValueError, match='The version 5.0.0 is there') as error:
    data_tfds.Tfds('imagenet2012', 'train', data_dir=tmp_path)
  text = str(error.value)
  assert 'from those of 5.1.0: 5.1.0: Added test split. To use' in text
  (line,) = re.findall(r'--config\.train_data\.name=(\S+)', text)
  found = data_tfds.Tfds(line, 'train', data_dir=tmp_path)
  assert found.fingerprint.startswith('tfds:imagenet2012/5.0.0/train:')


def test_images_of_tfds_are_kept_byte_for_byte(data_dir):
  source = data_tfds.Tfds('imagenet2012', 'validation', data_dir=data_dir)
  stored = source.encoded(2)
  assert stored.data in [jpeg(40 * i) for i in range(5)]
  assert stored.label == source[2]['label'] == source.decode(stored)['label']


def test_unknown_names_and_splits_are_refused(data_dir):
  with pytest.raises(ValueError, match="2021'; did you mean 'imagenet2"):
    data_tfds.Tfds('imagenet2021', 'train', data_dir=data_dir)
  with pytest.raises(ValueError, match="no split 'val'.*'train', 'validation'"):
    data_tfds.Tfds('imagenet2012', 'val', data_dir=data_dir)
  with pytest.raises(ValueError, match=r"images \['image'\], and 'pic"):
    data_tfds.Tfds('imagenet2012', 'train', data_dir, image_key='picture')
  with pytest.raises(ValueError, match='give the version folder'):
    convert_tfrecord.convert(data_dir)


@pytest.mark.parametrize('name', ['', 'a b!', '\0', 'mnist/x', 'mnist:9.9.9'])
def test_what_is_no_name_is_refused_in_one_line(name):
  with pytest.raises(ValueError, match='TFDS cannot open') as caught:
    data_tfds.Tfds(name, 'train')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('name', 'label'),
  [
    ('imagenet_resized/32x32', 'label'),
    ('imagenet_resized/64x64', 'label'),
    ('celeb_a_hq/256', None),
    ('celeb_a', None),
    ('lsun/bedroom', None),
    ('cifar10', 'label'),
    ('cifar100', 'label'),
  ],
)
def test_image_and_label_are_found_in_every_data_set(tmp_path, name, label):
  features = tfds.builder(name, data_dir=tmp_path).info.features
  assert data_tfds._choose_image(tfds, features, name, None) == 'image'
  assert data_tfds._choose_label(tfds, features, name, None) == label


class Toy:
  """Stands for the builder of a data set of two images, with some texts."""

  data_dir = 'nowhere'

  def __init__(self, *texts, full_name='toy/1.0.0'):
    self.texts = texts
    self.info = types.SimpleNamespace(
      splits={'train': None, 'train[:1]': None},
      features={
        'image': tfds.features.Image(shape=(None, None, 3)),
        'number': tfds.features.Scalar(np.int32),
        'second': tfds.features.Image(shape=(None, None, 3)),
        **{key: tfds.features.Text() for key in texts},
      },
      full_name=full_name,
    )

  def as_data_source(self, split, **_):
    return [
      {
        'image': jpeg(9),
        'second': jpeg(99),
        **{key: f'{key} {i}'.encode() for key in self.texts},
      }
      for i in range(1 if split.endswith(']') else 2)
    ]


@pytest.fixture
def toy(monkeypatch):
  """Opens a `Toy` with these arguments as a source."""

  def opened(*texts, full_name='toy/1.0.0', split='train', **arguments):
    builder = Toy(*texts, full_name=full_name)
    monkeypatch.setattr(data_tfds, '_open_builder', lambda *_: builder)
    return data_tfds.Tfds('toy', split, **arguments)

  return opened


def test_the_fingerprint_tells_data_that_differ_apart(toy):
  first = toy()
  assert first.fingerprint == toy('caption').fingerprint
  assert first.fingerprint.startswith('tfds:toy/1.0.0/train:')
  others = [
    toy(full_name='toy/1.0.1'),
    toy(split='train[:1]'),
    toy(image_key='second'),
    toy(max_value=1023),
  ]
  prints = {source.fingerprint for source in (first, *others)}
  assert len(prints) == 1 + len(others)


@pytest.mark.parametrize(
  ('texts', 'expected'),
  [
    ((), None),
    (('caption',), None),
    (('id', 'caption'), ['id 0', 'id 1']),
    (('id', 'file_name'), ['file_name 0', 'file_name 1']),
  ],
)
def test_file_names_are_those_that_the_data_set_stores_or_none(
  toy, texts, expected
):
  source = toy(*texts)
  assert source.file_names() == expected
  assert source[1]['label'] == 0


def test_both_imagenets_agree_on_what_a_class_is(tmp_path):
  """imagenet_resized lists its classes in another order than imagenet2012."""

  def names(name):
    return tfds.builder(name, data_dir=tmp_path).info.features['label'].names

  full, resized = names('imagenet2012'), names('imagenet_resized/32x32')
  assert full != resized and set(full) == set(resized)
  mine, new_label = data_tfds.in_order_of_ids(resized)
  assert list(mine) == full == sorted(full)
  assert data_tfds.in_order_of_ids(full) == (tuple(full), None)
  for old in range(1000):
    assert full[new_label[old]] == resized[old]
  cifar = ('airplane', 'automobile', 'bird')
  assert data_tfds.in_order_of_ids(cifar) == (cifar, None)
