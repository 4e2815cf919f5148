"""Statistics on disk, and which sets are named as not comparable."""

import json

import numpy as np
import pytest
from PIL import Image

from cdm.evaluation import image_source, reference_statistics
from cdm.sampling import output_folder, restore

AREA = {'crop': 'center', 'filter': 'area', 'min_side': 0}
SAME = {'image_size': [8, 8], 'network': 'n', 'weights_sha256': 'w'}


def sampled(prepared):
  """The manifest of a cascade whose last stage was trained on such images."""
  entries = [
    restore.StageRecord(name, 7, 0.0, {'kind': 'ddim'}, of).cascade_entry(
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


def test_what_a_manifest_does_not_say_is_not_compared():
  earlier = {**SAME, 'drawn': 'x', **sampled(None)}
  assert reference_statistics.differences(earlier, {**SAME, **AREA}) == []
  assert reference_statistics.differences({**SAME}, {**SAME, **AREA}) == []


def test_jpeg_references_are_not_comparable_with_png_samples(tmp_path):
  recipes = {}
  for suffix in ('png', 'jpg'):
    folder = tmp_path / suffix
    folder.mkdir()
    Image.new('RGB', (8, 8)).save(folder / f'0.{suffix}')
    recipes[suffix] = image_source.open_files(folder, None).recipe
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
