"""One label means one class, in training and wherever a stage is used."""

import json

import numpy as np
import pytest
from PIL import Image

from cdm.config import class_agreement, datasets
from cdm.config.loader import ConfigDict
from cdm.data import class_names

NAMES = ('ant', 'bee', 'cat', 'dog')


def made(root, classes):
  """Writes a picture into every class folder, and beside them for ''."""
  for n, name in enumerate(classes):
    (root / name).mkdir(parents=True, exist_ok=True)
    pixels = np.full((4, 4, 3), n, np.uint8)
    Image.fromarray(pixels).save(root / name / f'{n}.png')
  return str(root)


def config(tmp_path, classes, **keys):
  """-> a config of a network of four classes with this data."""
  path = made(tmp_path / 'eval', classes)
  section = {'kind': 'folder', 'path': path, **keys}
  return ConfigDict({'eval_data': section, 'train_data': section}).lock()


def check(c, names=NAMES):
  c = class_agreement.matched(c, names)
  class_agreement.check_evaluation(c, 4, names)
  return datasets.open_source(c.eval_data, 'eval_data')


def test_the_same_classes_in_the_same_order_pass(tmp_path):
  check(config(tmp_path, NAMES))
  # Names that are given give a folder that lacks some the right labels.
  check(config(tmp_path, ('cat',), class_names=NAMES))
  class_agreement.check_evaluation(ConfigDict(), None, None)


@pytest.mark.parametrize(
  ('classes', 'message'),
  [
    (NAMES[1:], "1 class is missing, first 'ant', class 0 .*matches them by"),
    (NAMES[:2], "2 classes are missing, first 'cat', class 2 in training"),
    ((*NAMES, 'eel'), "1 class is not in training, first 'eel' .5 classes"),
    (('ant', 'bee', 'cat', 'cow'), "1 class is not in training, first 'cow'"),
    (('eel', 'fox'), "no class in common, class 0 is 'eel' here and 'ant'"),
  ],
)
def test_the_first_difference_of_the_classes_is_named(
  tmp_path, classes, message
):
  match = f'classes of config.eval_data are not those of the tr.*{message}'
  with pytest.raises(ValueError, match=match):
    check(config(tmp_path, classes))


def test_photographs_in_the_package_are_compared_by_name():
  """A source that does not say whether its names are names has names."""
  section = {'kind': 'photographs', 'image_size': 8}
  c = ConfigDict({'eval_data': section}).lock()
  own = datasets.open_source(section).class_names
  class_agreement.check_evaluation(c, len(own), own)
  with pytest.raises(ValueError, match='classes of config.eval_data are not'):
    class_agreement.check_evaluation(c, len(own), own[::-1])


def test_the_order_of_the_classes_counts(tmp_path):
  c = config(tmp_path, NAMES, class_names=('ant', 'cat', 'bee', 'dog'))
  with pytest.raises(ValueError, match="class 1 is 'cat' here and 'bee' there"):
    check(c)


def test_data_without_labels_are_refused_where_labels_are_needed(tmp_path):
  for name, check_it in (
    ('eval_data', lambda c: check(c)),
    ('train_data', lambda c: open_training(c)),
  ):
    with pytest.raises(
      ValueError,
      match=rf'config.{name} \(folder\) has no classes.*{name}.labels',
    ):
      check_it(config(tmp_path / name, ('',)))


def open_training(c, num_classes=4):
  source = datasets.open_source(c.train_data)
  class_agreement.check_training(c, num_classes, source)


def test_a_label_file_is_the_way_out(tmp_path):
  path = tmp_path / 'labels.txt'
  path.write_text('0 dog\n', encoding='utf-8')
  c = config(tmp_path, ('',), labels=str(path), class_names=NAMES)
  assert check(c).labels.tolist() == [3]


def test_fewer_classes_are_matched_by_name_if_they_may_be_missing(tmp_path):
  c = config(tmp_path, NAMES[2:], allow_missing_classes=True)
  source = check(c)
  assert source.class_names == NAMES
  assert source.labels.tolist() == [2, 3]
  assert 'class_names' not in c.eval_data
  strange = config(tmp_path / 'x', ('cow',), allow_missing_classes=True)
  with pytest.raises(ValueError, match='in none of the 4 class folders'):
    check(strange)


def test_training_data_has_as_many_classes_as_the_network(tmp_path):
  c = config(tmp_path, NAMES)
  for n in (None, 4):
    open_training(c, n)
  with pytest.raises(ValueError, match='has 4 classes, labels 0 to 3'):
    open_training(c, 3)
  with pytest.raises(
    ValueError, match="has 4 classes, .'ant'.*on purpose, --c"
  ):
    open_training(c, 5)
  fewer = config(tmp_path, NAMES, allow_missing_classes=True)
  open_training(fewer, 5)
  with pytest.raises(ValueError, match='has 4 classes, labels 0 to 3'):
    open_training(fewer, 3)
  wrong = config(tmp_path, NAMES, allow_missing_classes='yes')
  with pytest.raises(ValueError, match='allow_missing_classes is .yes'):
    open_training(wrong)


def write_archive(tmp_path, labels):
  path = tmp_path / 'x.npz'
  images = np.zeros((len(labels), 4, 4, 3), np.uint8)
  np.savez(path, arr_0=images, arr_1=np.array(labels))
  return {'kind': 'archive', 'path': str(path)}


def test_labels_without_names_are_compared_by_their_number(tmp_path):
  c = ConfigDict({'eval_data': write_archive(tmp_path, [0, 3])})
  check(c)
  check(c, None)
  c = ConfigDict({'eval_data': write_archive(tmp_path, [0, 2])})
  with pytest.raises(ValueError, match='has 3 classes'):
    check(c)
  c.eval_data.allow_missing_classes = True
  check(c)


def test_a_trained_stage_is_used_on_the_classes_of_its_training(tmp_path):
  c = config(tmp_path, NAMES[1:])
  class_names.write(tmp_path, NAMES)
  for name in ('eval_data', 'train_data'):
    with pytest.raises(ValueError, match=f"{name} .*missing, first 'ant'"):
      class_agreement.of_stage(c, tmp_path, 4, name)
  assert class_agreement.of_stage(c, tmp_path, None) is c
  # Numbers are what data without names leaves in the work directory.
  (tmp_path / class_names.FILE).write_text(
    json.dumps(['0', '1', '2']), encoding='utf-8'
  )
  class_agreement.of_stage(c, tmp_path, 3)
