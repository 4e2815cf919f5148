"""Prepared shards: the same pixels, whole or not there, one manifest."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from cdm.data import (
  array_record,
  image_notes,
  pipeline,
  prepare,
  record_format,
  synthetic,
  transforms,
)
from cdm.data import folder as sources
from cdm.data.files import atomic_files, damaged_file

pytest.importorskip('array_record')


def take(source, count, **options):
  options = pipeline.PipelineOptions(**options)
  iterator = pipeline.make_iterator(source, options, batch_size=6, seed=4)
  return [next(iterator) for _ in range(count)]


def files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_on_prepared_images_is_the_same_bit_for_bit(
  write_folder, tmp_path
):
  """Labels, order, flips, replacements of bad files and small ones included."""
  root = tmp_path / 'files'
  root.mkdir()
  write_folder(root, 23, bad=(4, 17), suffix='.jpg')
  originals = sources.Folder(root)
  out = tmp_path / 'out'
  prepare.prepare(
    originals, size=5, out=out, records_per_shard=10, max_skip_fraction=0.1
  )
  prepared = array_record.ArrayRecords(out)
  assert len(prepared) == len(originals) == 23
  assert prepared.class_names == originals.class_names
  options = {'image_size': 5, 'flip': True, 'max_skip_fraction': 0.5}
  options['min_side'] = 9  # of the original, not of what is stored
  expected, mine = take(originals, 12, **options), take(prepared, 12, **options)
  for one, two in zip(expected, mine, strict=True):
    np.testing.assert_array_equal(one['image'], two['image'])
    np.testing.assert_array_equal(one['label'], two['label'])


def test_stored_pixels_are_the_sources_own(tmp_path):
  source = synthetic.Synthetic(image_size=8, num_images=9)
  prepare.prepare(source, size=8, crop='none', out=tmp_path)
  prepared = array_record.ArrayRecords(tmp_path)
  for i in range(9):
    np.testing.assert_array_equal(prepared[i]['image'], source[i]['image'])
    assert prepared[i]['label'] == source[i]['label']
    assert prepared[i]['image'].flags.writeable
  assert prepared.image_size == 8 and prepared.num_classes == 4


def test_bad_images_keep_their_place_and_their_name(write_folder, tmp_path):
  root = tmp_path / 'files'
  root.mkdir()
  write_folder(root, 4, classes=(), bad=(2,))
  out = tmp_path / 'out'
  index = prepare.prepare(
    sources.Folder(root), size=4, out=out, max_skip_fraction=0.5
  )
  assert ['0002.png' in text for text in index['shards'][0]['skipped']] == [
    True
  ]
  with pytest.raises(transforms.BadImage, match='0002.png: .*cut off'):
    array_record.ArrayRecords(out)[2]


def test_too_many_bad_images_stop_it(write_folder, tmp_path):
  root = tmp_path / 'files'
  root.mkdir()
  write_folder(root, 10, classes=(), bad=(2, 5, 6))
  with pytest.raises(
    ValueError, match='2 of 10 .*=0.1; the last is .*0005.png'
  ):
    prepare.prepare(
      sources.Folder(root), size=4, out=tmp_path / 'o', max_skip_fraction=0.1
    )


class Interrupted(synthetic.Synthetic):
  """Stops being readable from some image on."""

  readable, asked = 0, 0

  def __getitem__(self, i):
    self.asked += 1
    if i >= self.readable:
      raise KeyError('the disk is gone')
    return super().__getitem__(i)


def test_an_interrupted_run_continues_after_its_last_whole_shard(tmp_path):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  options = {'size': 4, 'records_per_shard': 20}
  source = synthetic.Synthetic(image_size=8, num_images=90)
  prepare.prepare(source, out=whole, **options)

  source = Interrupted(image_size=8, num_images=90)
  source.readable = 50
  with pytest.raises(KeyError, match='the disk is gone'):
    prepare.prepare(source, out=broken, **options)
  assert (
    len(
      json.loads((broken / 'index.json').read_text(encoding='utf-8'))['shards']
    )
    == 2
  )
  assert not list(broken.glob('.*'))
  with pytest.raises(ValueError, match='it has 40 of 90 records. Run the'):
    array_record.ArrayRecords(broken)

  source.readable, source.asked = 90, 0
  prepare.prepare(source, out=broken, **options)
  assert source.asked == 50
  assert files(broken) == files(whole)

  source.asked = 0
  prepare.prepare(source, out=broken, **options)
  assert source.asked == 0  # nothing left to do


KILLED = """
import sys, time
from cdm.data import prepare, synthetic
class Slow(synthetic.Synthetic):
  def __getitem__(self, i):
    time.sleep(0.01)
    return super().__getitem__(i)
prepare.prepare(Slow(image_size=8, num_images=2000), size=4, out=sys.argv[1],
                records_per_shard=20)
"""


def test_a_killed_run_leaves_nothing_half_written(tmp_path):
  out = tmp_path / 'out'
  process = subprocess.Popen(
    [sys.executable, '-c', KILLED, out], stderr=subprocess.DEVNULL
  )
  deadline = time.time() + 60
  while not list(out.glob('images-00003*.array_record')):
    assert time.time() < deadline and process.poll() is None
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  index = record_format.read_index(out)
  assert not index['complete'] and len(index['shards']) >= 3
  source = synthetic.Synthetic(image_size=8, num_images=2000)
  # A kill between two shards leaves nothing unfinished: one is put there.
  (out / atomic_files.partial_name('images-00099-of-00100')).touch()
  (left,) = out.glob('.*-00099-of-*')
  os.rename(left, str(left).replace(f'-{os.getpid()}-', f'-{process.pid}-'))
  prepare.prepare(source, size=4, out=out, records_per_shard=20)
  prepared = array_record.ArrayRecords(out)
  for i in (0, 59, 60, 61, 80, 1999):
    expected = transforms.fit(source[i]['image'], size=4)
    np.testing.assert_array_equal(prepared[i]['image'], expected)
  assert not list(out.glob('.*'))


def test_a_full_disk_is_said_and_leaves_nothing_unfinished(
  tmp_path, monkeypatch
):
  real, calls = os.fsync, []

  def full(file):
    calls.append(file)
    if len(calls) == 2:  # the first is that of the index
      raise OSError(errno.ENOSPC, 'No space left on device')
    return real(file)

  monkeypatch.setattr(os, 'fsync', full)
  source = synthetic.Synthetic(image_size=8, num_images=9)
  with pytest.raises(ValueError, match='Cannot write .*images-0.*No space'):
    prepare.prepare(source, size=4, out=tmp_path)
  assert list(files(tmp_path)) == ['index.json']


def test_worker_processes_write_the_same_bytes(tmp_path):
  source = synthetic.Synthetic(image_size=8, num_images=50)
  one, two = tmp_path / 'one', tmp_path / 'two'
  prepare.prepare(source, size=4, out=one)
  prepare.prepare(source, size=4, out=two, worker_count=1)
  assert files(one) == files(two)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'size': 8}, r'another manifest \(there: size 4; asked now: size 8\)'),
    ({'filter': 'bicubic'}, "there: filter 'area'"),
    ({'records_per_shard': 7}, 'records_per_shard'),
    ({'source': synthetic.Synthetic(num_images=8)}, 'source .* records 9'),
  ],
)
def test_two_manifests_are_never_mixed(tmp_path, change, message):
  options = {
    'source': synthetic.Synthetic(image_size=8, num_images=9),
    'size': 4,
    'out': tmp_path,
  }
  prepare.prepare(**options)
  before = files(tmp_path)
  with pytest.raises(ValueError, match=message):
    prepare.prepare(**options | change)
  assert files(tmp_path) == before


def test_another_decoder_is_another_manifest(tmp_path):
  source = synthetic.Synthetic(image_size=8, num_images=9)
  index = prepare.prepare(source, size=4, out=tmp_path)
  index['recipe']['pillow'] = '1.0'
  record_format.write_index(tmp_path, index)
  with pytest.raises(ValueError, match="there: pillow '1.0'"):
    prepare.prepare(source, size=4, out=tmp_path)


def damage(path, how):
  data = path.read_bytes()
  if how == 'lost':
    path.unlink()
  elif how == 'cut':
    path.write_bytes(data[: len(data) // 2])
  else:
    path.write_bytes(b'x' * len(data))


@pytest.mark.parametrize('how', ['lost', 'cut', 'changed'])
def test_a_damaged_shard_is_named_and_prepared_again(tmp_path, how, caplog):
  source = synthetic.Synthetic(image_size=8, num_images=50)
  options = {'size': 8, 'out': tmp_path, 'records_per_shard': 20}
  prepare.prepare(source, **options)
  whole = files(tmp_path)
  name = 'images-00001-of-00003.array_record'
  damage(tmp_path / name, how)
  with pytest.raises(ValueError, match=f'{name} is (missing|damaged)') as told:
    array_record.ArrayRecords(tmp_path)
  assert told.match('cdm prepare command again')
  prepare.prepare(source, **options)
  assert f'{name} is' in caplog.text
  assert files(tmp_path) == whole
  array_record.ArrayRecords(tmp_path)


def test_a_shard_of_another_length_is_named(tmp_path):
  source = synthetic.Synthetic(image_size=8, num_images=50)
  prepare.prepare(source, size=8, out=tmp_path, records_per_shard=20)
  first, *_, last = sorted(tmp_path.glob('*.array_record'))
  last.write_bytes(first.read_bytes())
  with pytest.raises(damaged_file.DamagedFile, match='00002.* has 20 records'):
    array_record.ArrayRecords(tmp_path)


def test_a_record_that_is_damaged_is_a_bad_image(tmp_path):
  source = synthetic.Synthetic(image_size=8, num_images=9)
  prepare.prepare(source, size=8, out=tmp_path)
  prepared = array_record.ArrayRecords(tmp_path)
  (path,) = tmp_path.glob('*.array_record')
  data = bytearray(path.read_bytes())
  data[300:340] = bytes(40)
  path.write_bytes(data)
  bad = []
  for i in range(9):
    try:
      prepared[i]
    except transforms.BadImage as error:
      bad.append(str(error))
  assert bad and all('its shard is damaged' in text for text in bad)


@pytest.mark.parametrize(
  'text',
  ['{"recipe": ', '[]', '{}', '{"shards": [{"file": "../../x.array_record"}]}'],
)
def test_a_damaged_index_is_told_and_the_set_prepared_again(
  tmp_path, text, caplog
):
  source = synthetic.Synthetic(image_size=8, num_images=9)
  prepare.prepare(source, size=4, out=tmp_path)
  whole, index = files(tmp_path), tmp_path / 'index.json'
  index.write_text(text, encoding='utf-8')
  with pytest.raises(damaged_file.DamagedFile, match='index.json is damaged'):
    array_record.ArrayRecords(tmp_path)
  (tmp_path / 'mine.txt').touch()
  with pytest.raises(damaged_file.DamagedFile, match='index.json is damaged'):
    prepare.prepare(source, size=4, out=tmp_path)
  assert index.read_text(encoding='utf-8') == text
  (tmp_path / 'mine.txt').unlink()
  prepare.prepare(source, size=4, out=tmp_path)
  assert 'index.json is damaged' in caplog.text and files(tmp_path) == whole


def test_an_index_names_shards_only(tmp_path):
  """A name with a folder in it could be that of any file."""
  index = prepare.prepare(
    synthetic.Synthetic(image_size=8, num_images=9), size=4, out=tmp_path
  )
  for name in ('../x', '/etc/passwd', 'images-00000-of-00001.array_record/..'):
    index['shards'][0]['file'] = name
    record_format.write_index(tmp_path, index)
    with pytest.raises(damaged_file.DamagedFile, match='is no shard of it'):
      array_record.ArrayRecords(tmp_path)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
  Image.new('RGB', (4, 4)).save(tmp_path / 'mine.png')
  source = synthetic.Synthetic(image_size=8, num_images=9)
  with pytest.raises(ValueError, match="neither empty nor .*'mine.png'"):
    prepare.prepare(source, size=4, out=tmp_path)
  with pytest.raises(ValueError, match='Cannot write into .*mine.png'):
    prepare.prepare(source, size=4, out=tmp_path / 'mine.png')


def test_two_runs_do_not_write_into_one_folder(tmp_path):
  source = synthetic.Synthetic(image_size=8, num_images=9)
  with prepare._sole_writer(tmp_path):
    with pytest.raises(ValueError, match='Another process is writing'):
      prepare.prepare(source, size=4, out=tmp_path)


def test_an_image_of_another_size_is_named(write_folder, tmp_path):
  root = tmp_path / 'files'
  root.mkdir()
  write_folder(root, 1)
  with pytest.raises(ValueError, match=r"a/0000\.png: crop='none' expects"):
    prepare.prepare(
      sources.Folder(root), size=4, crop='none', out=tmp_path / 'out'
    )


def test_a_filter_by_its_other_name_is_the_same_manifest(tmp_path):
  source = synthetic.Synthetic(image_size=9, num_images=5)
  options = {'size': 4, 'out': tmp_path}
  index = prepare.prepare(source, filter='center_crop_dhariwal', **options)
  assert index['recipe']['filter'] == 'box_then_bicubic'
  again = prepare.prepare(source, filter='box_then_bicubic', **options)
  assert again == index


def test_a_small_image_is_prepared_and_training_decides_as_without(
  write_folder, tmp_path, caplog
):
  """The shorter sides are 8 to 11."""
  root = tmp_path / 'files'
  root.mkdir()
  write_folder(root, 23)
  originals = sources.Folder(root)
  image_notes._counts.cache_clear()  # It says each kind once.
  prepare.prepare(originals, size=10, out=tmp_path / 'out')
  assert 'png: its 8 pixels were enlarged to 10' in caplog.text
  prepared = array_record.ArrayRecords(tmp_path / 'out')
  for options in ({}, {'min_side': 0}, {'allow_enlarging': True}):
    options['image_size'] = 10
    expected, mine = take(originals, 8, **options), take(prepared, 8, **options)
    for one, two in zip(expected, mine, strict=True):
      np.testing.assert_array_equal(one['image'], two['image'])


def test_random_crops_cannot_be_prepared(tmp_path):
  source = synthetic.Synthetic(image_size=8, num_images=9)
  with pytest.raises(ValueError, match='differs each epoch'):
    prepare.prepare(source, size=4, out=tmp_path, crop='random')


def test_a_bucket_as_output_is_refused(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  source = synthetic.Synthetic(image_size=8, num_images=9)
  with pytest.raises(ValueError, match='is in a bucket, .* copy the folder'):
    prepare.prepare(source, size=4, out='gs://bucket/set')
  assert not list(tmp_path.iterdir())


def test_damaged_records_are_bad_images():
  with pytest.raises(transforms.BadImage, match=r'x\[3\]: not a record'):
    record_format.unpack(b'', name='x[3]')
  source = synthetic.Synthetic(image_size=8)
  for damaged in (b'{"a": 1}', b'["a"]', b'["a", 1]', b'\xff', b'[' * 9999):
    data = record_format.pack_bad(transforms.BadImage('a', 'b'))
    with pytest.raises(transforms.BadImage, match=r'x\[3\]: not a record'):
      record_format.unpack(data[:16] + damaged, name='x[3]')
  data = record_format.pack(source[0])
  with pytest.raises(transforms.BadImage, match='are not -8x-8'):
    record_format.unpack(
      data[:12] + (-8).to_bytes(4, 'little', signed=True) + data[16:],
      name='x[3]',
    )
  with pytest.raises(transforms.BadImage, match='are not 8x8'):
    record_format.unpack(data[:-1], name='x[3]')
  assert os.path.basename(record_format.INDEX) == record_format.INDEX
