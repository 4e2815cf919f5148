"""Files in the records of a prepared set: the same pixels, the same bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from cdm.data import (
  array_record,
  payload,
  pipeline,
  prepare,
  record_format,
  synthetic,
)
from cdm.data import folder as sources

pytest.importorskip('array_record')


def batches(source, **options):
  options = pipeline.PipelineOptions(image_size=5, flip=True, **options)
  iterator = pipeline.make_iterator(source, options, batch_size=6, seed=4)
  return [next(iterator) for _ in range(6)]


def assert_same(expected, mine):
  for one, two in zip(expected, mine, strict=True):
    np.testing.assert_array_equal(one['image'], two['image'])
    np.testing.assert_array_equal(one['label'], two['label'])


def records(folder):
  (path,) = folder.glob('*.array_record')
  found = array_record.open_shards([str(path)])
  return [found[i] for i in range(len(found))]


def test_training_on_png_files_sees_the_pixels_of_a_raw_set(
  write_folder, tmp_path
):
  """And so does training on the original files, which it crops and resizes."""
  root = tmp_path / 'files'
  root.mkdir()
  write_folder(root, 23, bad=(4, 17), suffix='.jpg')
  source = sources.Folder(root)
  common = {'max_skip_fraction': 0.1}
  prepare.prepare(source, size=5, out=tmp_path / 'raw', **common)
  prepare.prepare(source, size=5, out=tmp_path / 'png', payload='png', **common)
  prepare.prepare(
    source, size=None, out=tmp_path / 'own', payload='jpeg', **common
  )
  options = {'max_skip_fraction': 0.5, 'min_side': 9}
  expected = batches(source, **options)
  for name in ('raw', 'png', 'own'):
    prepared = array_record.ArrayRecords(tmp_path / name)
    assert prepared.class_names == source.class_names
    assert_same(expected, batches(prepared, **options))
  manifest = record_format.read_index(tmp_path / 'png')['recipe']
  assert manifest['payload'] == 'png' and 'quality' not in manifest
  assert record_format.read_index(tmp_path / 'own')['recipe']['size'] == 0


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('kind', ['png', 'jpeg'])
def test_files_of_the_asked_size_are_kept_byte_for_byte(tmp_path, suffix, kind):
  root = tmp_path / 'files'
  root.mkdir()
  for i, size in enumerate([(8, 8), (9, 8), (8, 8)]):
    Image.new('RGB', size, (9 * i, 1, 2)).save(root / f'{i}{suffix}')
  prepare.prepare(
    sources.Folder(root), size=8, out=tmp_path / 'out', payload=kind
  )
  stored = [record[16:] for record in records(tmp_path / 'out')]
  files = [(root / f'{i}{suffix}').read_bytes() for i in range(3)]
  assert [one == two for one, two in zip(stored, files, strict=True)] == [
    True,
    False,
    True,
  ]


def test_a_file_that_the_source_reads_in_its_own_way_is_written_anew(tmp_path):
  """Here 16 bits with a white of its own, which a record does not know."""
  root = tmp_path / 'files'
  root.mkdir()
  deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
  Image.fromarray(deep).save(root / '0.png')
  Image.new('RGB', (8, 8)).save(root / '1.webp', lossless=True)
  source = sources.Folder(root, max_value=4095)
  prepare.prepare(source, size=None, out=tmp_path / 'out', payload='png')
  prepared = array_record.ArrayRecords(tmp_path / 'out')
  assert prepared[0]['image'].max() == 3780 * 255 // 4095
  for i, record in enumerate(records(tmp_path / 'out')):
    assert record[16:20] == b'\x89PNG'
    np.testing.assert_array_equal(prepared[i]['image'], source[i]['image'])


@pytest.mark.parametrize('turned', [True, False])
def test_a_kept_file_is_turned_as_the_source_turns_it(tmp_path, turned):
  root = tmp_path / 'files'
  root.mkdir()
  image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
  exif = image.getexif()
  exif[0x0112] = 6
  image.save(root / '0.png', exif=exif)
  source = sources.Folder(root, exif_rotation=turned)
  prepare.prepare(source, size=None, out=tmp_path / 'out', payload='png')
  (record,) = records(tmp_path / 'out')
  assert record[16:] == (root / '0.png').read_bytes()
  (found,) = array_record.ArrayRecords(tmp_path / 'out')
  np.testing.assert_array_equal(found['image'], source[0]['image'])
  assert np.array_equal(found['image'], np.asarray(image)) != turned


def test_images_without_files_are_written_as_the_payload_says(tmp_path):
  source = synthetic.Synthetic(image_size=16, num_images=9)
  sizes, errors = {}, {}
  for kind, quality in (('png', 95), ('jpeg', 95), ('jpeg', 30)):
    out = tmp_path / f'{kind}{quality}'
    prepare.prepare(source, size=16, out=out, payload=kind, quality=quality)
    prepared = array_record.ArrayRecords(out)
    pixels = np.stack([prepared[i]['image'] for i in range(9)])
    true = np.stack([source[i]['image'] for i in range(9)])
    errors[kind, quality] = np.abs(pixels.astype(int) - true).mean()
    data = records(out)
    sizes[kind, quality] = sum(map(len, data))
    with Image.open(io.BytesIO(data[0][16:])) as image:
      assert image.format == kind.upper()
      assert kind == 'png' or image.layer[1][1] == 1  # colours of each pixel
  assert 0 == errors['png', 95] < errors['jpeg', 95] < errors['jpeg', 30]
  assert sizes['jpeg', 30] < sizes['jpeg', 95]


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'payload': 'gif'}, "payload is 'gif'; known payloads are"),
    ({'payload': 'jpeg', 'quality': 101}, 'quality is 101; it must be 1 to'),
    ({'payload': 'raw', 'size': None}, 'original sizes are kept as files'),
  ],
)
def test_a_payload_that_cannot_be_is_refused(tmp_path, given, message):
  source = synthetic.Synthetic(image_size=8, num_images=3)
  with pytest.raises(ValueError, match=message):
    prepare.prepare(source, **{'size': 8, 'out': tmp_path / 'o', **given})
  assert not (tmp_path / 'o').exists()


@pytest.mark.parametrize(
  ('first', 'second'),
  [
    ({}, {'payload': 'png'}),
    ({'payload': 'png'}, {}),
    ({'payload': 'jpeg'}, {'payload': 'jpeg', 'quality': 90}),
  ],
)
def test_two_payloads_are_never_mixed(tmp_path, first, second):
  source = synthetic.Synthetic(image_size=8, num_images=3)
  prepare.prepare(source, size=8, out=tmp_path, **first)
  with pytest.raises(ValueError, match='another manifest .there: (payload|qu)'):
    prepare.prepare(source, size=8, out=tmp_path, **second)


def test_a_raw_record_is_that_of_earlier_versions():
  """So a set that was begun by one of them is continued."""
  element = synthetic.Synthetic(image_size=8)[3]
  packed = payload.pack(element, element['image'], None, payload.Payload())
  assert packed == record_format.pack(element) and packed[:4] == b'CDM1'
  assert payload.Payload().manifest() == {}
