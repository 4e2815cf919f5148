"""Statistics on disk, and which sets are named as not comparable."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from cdm.data import folder, prepare, synthetic
from cdm.evaluation import image_source, reference_statistics
from cdm.sampling import output_folder, stage_record

AREA = {'crop': 'center', 'filter': 'area', 'min_side': 0}
SAME = {'image_size': [8, 8], 'network': 'n', 'weights_sha256': 'w'}


def sampled(prepared):
  """The manifest of a cascade whose last stage was trained on such images."""
  entries = [
    stage_record.StageRecord(name, 7, 0.0, {'kind': 'ddim'}, of).cascade_entry(
      {'name': name}, name
    )
    for name, of in (('base', {**AREA, 'filter': 'lanczos'}), ('sr', prepared))
  ]
  return {'stages': entries}


@pytest.mark.parametrize(
  'changed, title',
  [
    ({'crop': 'none'}, 'the crop'),
    ({'filter': 'bicubic'}, 'the resize filter'),
    ({'min_side': 256}, 'the least side of an image'),
    ({'min_side': None}, None),  # like 0: every image is taken
    ({}, None),
  ],
)
def test_another_preparation_of_the_images_is_not_comparable(changed, title):
  reference = {**SAME, **AREA, **changed}
  drawn = {**SAME, 'drawn': 'x', **sampled(AREA)}
  written = {**SAME, 'sampling': sampled(AREA), 'suffixes': ['.png']}
  upscaled = {**SAME, 'sampling': {'prepared': AREA}}
  for recipe in (drawn, written, upscaled, {**SAME, **AREA}):
    found = reference_statistics.differences(recipe, reference)
    if title is None:
      assert found == []
    else:
      (sentence,) = found
      assert sentence.startswith(f'{title} is ')


@pytest.mark.parametrize(
  ('changed', 'said'),
  [
    ({}, None),
    ({'split': 'validation'}, None),
    (
      {'source': 'tfds:celeb_a_hq/256'},
      "the source is 'tfds:imagenet2012'",
    ),
    (
      {'split': 'train[:1%]'},
      "the split is 'train' or 'validation' in",
    ),
    ({'count': 10}, 'the count is 10 for the reference, of 20 images'),
  ],
)
def test_a_reference_of_other_images_is_not_comparable(changed, said):
  data_sets = {
    split: {'source': 'tfds:imagenet2012', 'split': name}
    for split, name in (('train', 'train'), ('eval', 'validation'))
  }
  record = stage_record.StageRecord('x', 7, 0.0, {}, AREA, data_sets)
  reference = {**SAME, **AREA, **data_sets['train'], 'available': 20}
  reference = {**reference, 'count': 20, **changed}
  for samples in (
    {**SAME, 'drawn': 'x', 'stages': [record.manifest()]},
    {**SAME, 'sampling': {'stages': [record.manifest()]}},
  ):
    found = reference_statistics.differences(samples, reference)
    assert len(found) == (said is not None)
    assert all(sentence.startswith(said) for sentence in found)
    compared = reference_statistics.comparison(samples, reference)
    assert compared['source']['samples'] == 'tfds:imagenet2012'
    assert compared['split']['samples'] == 'train'
    assert compared['count']['reference'] == reference['count']


def test_real_images_may_be_compared_with_another_split_of_their_data():
  sets = [
    {**SAME, 'source': 'tfds:x', 'split': split, 'count': 9, 'available': 9}
    for split in ('train', 'validation')
  ]
  assert reference_statistics.differences(*sets) == []


def test_parts_of_the_same_data_in_two_orders_are_other_images():
  part = {**SAME, 'source': 'ffhq', 'split': 'all', 'count': 9, 'available': 70}
  spread = 'spread evenly over the data, in its order'
  sets = [{**part, 'order': f'{spread} ({how})'} for how in ('text', 'numbers')]
  found = reference_statistics.differences(*sets)
  assert found[-1].startswith(f"the order is '{spread} (text)' for the samples")
  assert len(found) == 2
  assert len(reference_statistics.differences(sets[0], sets[0])) == 1
  other = {**sets[0], 'split': 'train'}
  assert len(reference_statistics.differences(other, sets[1])) == 1


def test_a_name_that_a_config_states_is_that_of_the_library():
  named = {'source': 'imagenet2012', 'split': 'train'}
  record = stage_record.StageRecord('x', 7, 0.0, {}, AREA, {'train': named})
  samples = {**SAME, 'drawn': 'x', 'stages': [record.manifest()]}
  reference = {**SAME, **AREA, 'source': 'tfds:imagenet2012', 'split': 'train'}
  assert reference_statistics.differences(samples, reference) == []
  reference['split'] = 'validation'
  (sentence,) = reference_statistics.differences(samples, reference)
  assert sentence.startswith("the split is 'train' in the config")
  unknown = stage_record.StageRecord(
    'x', 7, 0.0, {}, AREA, {'train': {'source': 'imagenet2012'}}
  )
  samples['stages'] = [unknown.manifest()]
  assert reference_statistics.differences(samples, reference) == []


def test_what_statistics_do_not_say_is_unknown():
  """Those of earlier versions and of [ADM] lack the entries."""
  compared = reference_statistics.comparison({**SAME, **AREA}, {})
  assert {of['reference'] for of in compared.values()} == {'unknown'}
  assert compared['filter']['samples'] == 'area'
  assert compared['order']['samples'] == 'unknown'


def test_prepared_shards_say_how_they_were_made(tmp_path):
  pytest.importorskip('array_record')
  original = tmp_path / 'original'
  original.mkdir()
  for n in range(3):
    Image.new('RGB', (12, 9)).save(original / f'{n}.png')
  shards = tmp_path / 'shards'
  prepare.prepare(folder.Folder(original), size=8, filter='box', out=shards)
  read = image_source.open_files(shards, None).recipe
  assert read['order'] == 'all, in the order of the data'
  sections = [
    {'kind': 'folder', 'path': str(original)},
    {'kind': 'array_records', 'path': str(shards)},
  ]
  by_config = []
  for section in sections:
    loaded = ConfigDict(
      {'train_data': section, 'pipeline': {'image_size': 8, 'filter': 'box'}}
    )
    opened = image_source.config_data(loaded, 'train', 2, 'x')
    by_config.append(opened.recipe)
    assert opened.recipe['available'] == 3 and opened.recipe['count'] == 2
    assert opened.recipe['order'].startswith('spread')
  origins = {recipe['origin'] for recipe in (read, *by_config)}
  assert len(origins) == 1
  kept = tmp_path / 'kept'
  prepare.prepare(synthetic.Synthetic(8, 3), size=8, crop='none', out=kept)
  as_they_were = image_source.open_files(kept, None).recipe
  assert not {'crop', 'filter', 'min_side'} & as_they_were.keys()
  (said,) = reference_statistics.differences({**SAME, **AREA}, {**SAME, **read})
  assert said.startswith("the resize filter is 'area' for the images behind")


def test_what_a_manifest_does_not_say_is_not_compared():
  earlier = {**SAME, 'drawn': 'x', **sampled(None)}
  assert reference_statistics.differences(earlier, {**SAME, **AREA}) == []
  assert reference_statistics.differences({**SAME}, {**SAME, **AREA}) == []


def test_jpeg_references_are_not_comparable_with_png_samples(tmp_path):
  recipes = {}
  for suffix in ('png', 'jpg'):
    place = tmp_path / suffix
    place.mkdir()
    Image.new('RGB', (8, 8)).save(place / f'0.{suffix}')
    recipes[suffix] = image_source.open_files(place, None).recipe
  recipes['drawn'] = {'image_size': [8, 8], 'drawn': 'x'}
  for ours in ('png', 'drawn'):
    (said,) = reference_statistics.differences(recipes[ours], recipes['jpg'])
    assert 'the reference are files of lossy compression, such as JPEG' in said
    (said,) = reference_statistics.differences(recipes['jpg'], recipes[ours])
    assert 'the samples are files of lossy compression' in said
  for both in ('png', 'jpg'):
    same = [recipes[both]] * 2
    assert reference_statistics.differences(*same) == []
  # Images of a config are resized after they were decoded.
  config = {'image_size': [8, 8], **AREA}
  assert reference_statistics.differences(recipes['png'], config) == []


def test_a_folder_of_an_earlier_version_is_continued(tmp_path):
  """Its manifest lacks how the training images were prepared."""
  earlier, now = ({'seed': 0, **sampled(of)} for of in (None, AREA))
  for stage in earlier['stages']:
    stage.pop('prepared', None)
  output_folder.claim(tmp_path, earlier, name='sampling.json')
  output_folder.claim(tmp_path, now, name='sampling.json')
  other = tmp_path / 'other'
  output_folder.claim(other, now, name='sampling.json')
  changed = {'seed': 0, **sampled({**AREA, 'filter': 'bicubic'})}
  with pytest.raises(ValueError, match='another manifest: stages'):
    output_folder.claim(other, changed, name='sampling.json')
  saved = json.loads((other / 'sampling.json').read_text(encoding='utf-8'))
  assert saved['stages'][-1]['prepared'] == AREA


def test_statistics_without_a_count_can_be_written_again(tmp_path):
  """Those of ADM's evaluator do not say how many images they are of."""
  np.savez(tmp_path / 'adm.npz', mu=np.zeros(3), sigma=np.eye(3))
  found = reference_statistics.read(tmp_path / 'adm.npz')
  assert found.count is None
  reference_statistics.write(tmp_path / 'again.npz', found)
  again = reference_statistics.read(tmp_path / 'again.npz')
  assert again.count is None and again.recipe == {}
  np.testing.assert_array_equal(again.covariance, np.eye(3))
