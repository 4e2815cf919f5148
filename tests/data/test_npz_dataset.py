"""Samples on disk as a data set: the same pixels, the right classes."""

import json
import pickle

import numpy as np
import pytest

from cdm.data import class_names, npz_dataset, pipeline
from cdm.reporting import image_files


def made(n=6, size=4):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (n, size, size, 3)).astype(np.uint8)
  return images, np.arange(n) % 3


def write(path, images, labels):
  image_files.write_npz(path, images, shape=images.shape, labels=labels)


@pytest.fixture
def samples(tmp_path):
  write(tmp_path / 's.npz', *made())
  return tmp_path / 's.npz'


def test_what_cdm_sample_writes_is_read_in_place(samples):
  images, labels = made()
  source = npz_dataset.Archive(samples)
  for copy in (source, pickle.loads(pickle.dumps(source))):
    assert len(copy) == 6
    for i in range(6):
      np.testing.assert_array_equal(copy[i]['image'], images[i])
      assert (copy[i]['label'], copy[i]['short_side']) == (labels[i], 4)
  assert source.class_names == ('0', '1', '2') and source.num_classes == 3

  # In place: what changes on the disk changes in the open source.
  data = samples.read_bytes()
  samples.write_bytes(data.replace(images[3].tobytes(), bytes(48)))
  assert not source[3]['image'].any()


def test_an_archive_cut_off_while_it_is_open_is_an_error(samples):
  """A memory map would end the process."""
  source = npz_dataset.Archive(samples)
  with open(samples, 'rb+') as file:
    file.truncate(200)
  with pytest.raises(ValueError, match='has become shorter'):
    source[5]


def test_images_end_where_they_end(samples):
  source = npz_dataset.Archive(samples)
  with pytest.raises(IndexError):
    source[6]
  assert len(list(source)) == 6


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_archives_of_numpy_are_read_alike(tmp_path, samples, save):
  images, labels = made()
  save(tmp_path / 'n.npz', images, labels)
  source = npz_dataset.Archive(tmp_path / 'n.npz')
  np.testing.assert_array_equal(source[5]['image'], images[5])
  assert source.fingerprint == npz_dataset.Archive(samples).fingerprint
  write(samples, images, labels[::-1])
  assert source.fingerprint != npz_dataset.Archive(samples).fingerprint


def test_labels_are_translated_by_name(samples):
  (samples.parent / class_names.FILE).write_text(
    json.dumps(['c', 'a', 'b']), encoding='utf-8'
  )
  own = npz_dataset.Archive(samples)
  assert own.class_names == ('c', 'a', 'b') and own[1]['label'] == 1
  source = npz_dataset.Archive(samples, class_names=('a', 'b', 'c', 'd'))
  assert [int(source[i]['label']) for i in range(3)] == [2, 0, 1]
  assert source.num_classes == 4
  with pytest.raises(ValueError, match="1 classes .* expected, first 'c'"):
    npz_dataset.Archive(samples, class_names=('a', 'b'))


def test_no_classes_may_be_asked_for(samples):
  source = npz_dataset.Archive(samples, class_names=())
  assert source.num_classes == 0 and not source.labels.any()


def test_more_labels_than_names_beside_it_are_refused(samples):
  names = samples.parent / class_names.FILE
  names.write_text('["c", "a"]', encoding='utf-8')
  with pytest.raises(ValueError, match='from 0 to 2, but .* names 2 classes'):
    npz_dataset.Archive(samples, class_names=('a', 'c'))


def test_labels_without_names_are_numbers(samples):
  source = npz_dataset.Archive(samples, class_names=('a', 'b', 'c', 'd'))
  assert [int(source[i]['label']) for i in range(3)] == [0, 1, 2]
  with pytest.raises(ValueError, match='labels up to 2, but there are 2 class'):
    npz_dataset.Archive(samples, class_names=('a', 'b'))


def test_it_goes_through_the_pipeline(samples):
  batches = pipeline.make_iterator(
    npz_dataset.Archive(samples),
    pipeline.PipelineOptions(image_size=2),
    batch_size=6,
    seed=0,
  )
  batch = next(batches)
  batches.close()
  assert batch['image'].shape == (6, 2, 2, 3)
  assert sorted(batch['label']) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    (dict(arr_0=made()[0]), 'has no arr_1; the labels of its images'),
    (dict(arr_1=made()[1]), 'but no arr_0'),
    (
      dict(arr_0=made()[0], arr_1=np.zeros(5, int)),
      r'arr_1 .* is int64 \(5,\); the labels .* int \[6\]',
    ),
    (
      dict(arr_0=made()[0] / 255.0, arr_1=made()[1]),
      'arr_0 .* is float64 .* uint8',
    ),
    (dict(arr_0=made()[0][..., :1], arr_1=made()[1]), r'\[N, H, W, 3\]'),
    (
      dict(arr_0=made()[0], arr_1=made()[1] + 10**8),
      'has the label 100000002 and no classes.json .* 100000 classes',
    ),
    (dict(arr_0=made()[0], arr_1=made()[1] - 1), 'arr_1 .* with a label of -1'),
  ],
)
def test_what_is_no_labelled_set_is_refused(tmp_path, arrays, message):
  np.savez(tmp_path / 'x.npz', **arrays)
  with pytest.raises(ValueError, match=message):
    npz_dataset.Archive(tmp_path / 'x.npz')


def test_a_truncated_archive_is_refused(samples):
  samples.write_bytes(samples.read_bytes()[:200])
  with pytest.raises(ValueError, match='cannot be read .* truncated'):
    npz_dataset.Archive(samples)
  with pytest.raises(ValueError, match='no.npz does not exist'):
    npz_dataset.Archive(samples.with_name('no.npz'))
