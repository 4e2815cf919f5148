"""The names of public data sets, from configs and from fingerprints."""

import pytest

from cdm.data import data_origin


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('imagenet2012', 'tfds:imagenet2012'),
    ('imagenet2012:5.0.0', 'tfds:imagenet2012'),
    ('imagenet_resized/64x64', 'tfds:imagenet_resized/64x64'),
  ],
)
def test_a_section_names_a_data_set_without_its_version(name, expected):
  section = {'kind': 'tfds', 'name': name, 'split': 'train[:1%]'}
  found = data_origin.of_section(section)
  assert found == {'source': expected, 'split': 'train[:1%]'}


@pytest.mark.parametrize(
  ('fingerprint', 'expected'),
  [
    ('tfds:imagenet2012/5.1.0/train:00ff', ('imagenet2012', 'train')),
    (
      'tfds:imagenet_resized/64x64/0.1.0/train[:1%]:00ff',
      ('imagenet_resized/64x64', 'train[:1%]'),
    ),
  ],
)
def test_the_fingerprint_of_prepared_shards_names_it_too(fingerprint, expected):
  name, split = expected
  found = data_origin.of_fingerprint(fingerprint)
  assert found == {'source': f'tfds:{name}', 'split': split}


def test_a_config_names_those_of_its_sections_that_have_names():
  named = {'kind': 'tfds', 'name': 'x', 'split': 'train'}
  config = {'train_data': named, 'eval_data': {'kind': 'folder', 'path': 'y'}}
  found = {'train': {'source': 'tfds:x', 'split': 'train'}}
  assert data_origin.of_sections(config) == found
  assert data_origin.of_sections({'train_data': {'kind': 'folder'}}) is None


@pytest.mark.parametrize(
  ('section', 'expected'),
  [
    ({'kind': 'folder', 'data_set': 'ffhq:train'}, ('ffhq', 'train')),
    ({'kind': 'zip', 'data_set': 'tfds:x/64'}, ('x/64', None)),
    (
      {'kind': 'tfds', 'name': 'y', 'split': 'test', 'data_set': 'x:train'},
      ('x', 'train'),
    ),
    (
      {'kind': 'imagenet_tar', 'path': '/data/ILSVRC2012_img_train.tar'},
      ('imagenet2012', 'train'),
    ),
    (
      {'kind': 'imagenet_tar', 'path': 'ILSVRC2012_img_val.tar'},
      ('imagenet2012', 'validation'),
    ),
    ({'kind': 'imagenet_tar', 'path': '/data/tars'}, ('imagenet2012', None)),
  ],
)
def test_a_section_states_its_data_set_or_is_known_by_its_form(
  section, expected
):
  found = data_origin.of_section(section)
  assert (found['source'], found.get('split')) == expected


def test_a_folder_names_no_data_set():
  section = {'kind': 'folder', 'path': '/data/ffhq'}
  assert data_origin.of_section(section) == {}
  assert data_origin.of_section({}) == {}
  assert data_origin.of_fingerprint('folder:0123') == {}
