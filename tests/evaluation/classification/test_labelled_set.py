"""A labelled set is found however it is named, and classes go by name."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from support import smoke_runs, tfrecord_sets

from cdm.config import datasets
from cdm.evaluation.classification import labelled_set


def folder(path, names, each=2):
  for k, name in enumerate(names):
    (path / name).mkdir(parents=True)
    for n in range(each):
      pixels = np.full((4, 4, 3), 40 * k, np.uint8)
      Image.fromarray(pixels).save(path / name / f'{n}.png')
  return path


def archive(path, names=None):
  path.mkdir()
  images = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
  np.savez(path / 'samples.npz', images, np.arange(3))
  if names:
    (path / 'classes.json').write_text(json.dumps(names), encoding='utf-8')
  return path


def test_folders_archives_and_samples_are_told_apart(tmp_path):
  pictures = folder(tmp_path / 'f', ['b', 'a'])
  assert labelled_set.section(pictures)['kind'] == 'folder'
  drawn = archive(tmp_path / 's')
  assert labelled_set.section(drawn / 'samples.npz')['kind'] == 'archive'
  assert labelled_set.section(drawn)['kind'] == 'folder'  # without its recipe
  (drawn / 'sampling.json').write_text('{}', encoding='utf-8')
  found = labelled_set.section(drawn)
  assert found['path'] == str(drawn / 'samples.npz')
  (drawn / 'samples.npz').unlink()
  with pytest.raises(ValueError, match='is unfinished, because it has no sam'):
    labelled_set.section(drawn)


@pytest.mark.parametrize('split', ['train', 'eval'])
def test_the_data_of_a_config_are_its_section(split):
  path = smoke_runs.CONFIGS / 'smoke.py'
  found = labelled_set.section(f'{path}:{split}')
  source, _ = labelled_set.open_set('it', found)
  assert len(source) == {'train': 256, 'eval': 64}[split]


def test_archives_of_files_go_by_name_too(tmp_path):
  pictures = folder(tmp_path / 'f', ['b', 'a'])
  with zipfile.ZipFile(tmp_path / 'f.zip', 'w') as file:
    for path in sorted(pictures.rglob('*.png')):
      file.write(path, path.relative_to(pictures))
  section = {'kind': 'zip', 'path': str(tmp_path / 'f.zip')}
  source, _ = labelled_set.open_set('it', section, ['c', 'b', 'a'])
  for element in (source[i] for i in range(4)):
    assert element['label'] == (1 if element['image'].max() == 0 else 2)


def test_folders_go_by_name_whatever_their_order(tmp_path):
  path = folder(tmp_path / 'f', ['b', 'a'])  # b is dark
  source, given = labelled_set.open_set(
    path, labelled_set.section(path), ['c', 'b', 'a']
  )
  assert given['class_names'] == ('c', 'b', 'a')
  for element in (source[i] for i in range(4)):
    assert element['label'] == (1 if element['image'].max() == 0 else 2)
  again = datasets.open_source(given)
  assert again.fingerprint == source.fingerprint
  with pytest.raises(ValueError, match='is in none of the 2 class folders'):
    labelled_set.open_set(path, labelled_set.section(path), ['b', 'c'])


def test_samples_go_by_name_where_they_have_names(tmp_path):
  named = archive(tmp_path / 'n', ['x', 'y', 'z']) / 'samples.npz'
  source, _ = labelled_set.open_set(
    named, labelled_set.section(named), ['z', 'x', 'y']
  )
  assert source.labels.tolist() == [1, 2, 0] and labelled_set.is_named(source)
  bare = archive(tmp_path / 'b') / 'samples.npz'
  source, _ = labelled_set.open_set(
    bare, labelled_set.section(bare), ['z', 'x', 'y']
  )
  assert source.labels.tolist() == [0, 1, 2] and not labelled_set.is_named(
    source
  )


def test_tables_go_by_name(tmp_path):
  synsets = ('n01440764', 'n01443537')
  images = [(b'', 1, synsets[0], 'a.JPEG'), (b'', 2, synsets[1], 'b.JPEG')]
  path = tfrecord_sets.slim(tmp_path / 'slim', images, files=1)
  given = {'kind': 'tfrecords', 'path': str(path)}
  source, _ = labelled_set.open_set(path, given, synsets[::-1])
  assert source.labels.tolist() == [1, 0] and labelled_set.is_named(source)


def test_data_of_other_classes_are_refused(tmp_path):
  given = labelled_set.section(f'{smoke_runs.CONFIGS / "smoke.py"}:train')
  names = [f'grating {n}' for n in range(4)]
  labelled_set.open_set('it', given, names)
  with pytest.raises(ValueError, match="Class 1 of it is 'grating 1', but"):
    labelled_set.open_set('it', given, [names[0], names[2], names[1], names[3]])
  with pytest.raises(ValueError, match='it has 4 classes and .* with 2'):
    labelled_set.open_set('it', given, names[:2])
  flat = folder(tmp_path, ['only']) / 'only'
  with pytest.raises(ValueError, match='only has no classes'):
    labelled_set.open_set(flat, labelled_set.section(flat))


def test_what_is_no_set_is_refused(tmp_path):
  with pytest.raises(ValueError, match='nowhere is not a labelled set'):
    labelled_set.section(tmp_path / 'nowhere')
