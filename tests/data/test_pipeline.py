"""Order, position, skipping and workers of the input pipeline."""

import errno
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image

from cdm.data import (
  folder,
  image_notes,
  pipeline,
  synthetic,
  transforms,
  workers,
)
from cdm.data.files import storage_retry, transient_errors


class Numbered:
  """Label i, and an image full of it: it says which record came out."""

  num_classes = 0

  def __init__(self, count, bad=(), sides=None):
    self.count, self.bad, self.sides = count, bad, sides or {}

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    if i in self.bad:
      raise transforms.BadImage(f'file{i}.jpg', 'truncated')
    return {
      'image': np.full((4, 4, 3), i % 256, np.uint8),
      'label': np.int32(i),
      'short_side': np.int32(self.sides.get(i, 4)),
    }


def start(source, **arguments):
  """-> an iterator; options of the pipeline stand among the arguments."""
  arguments = {'image_size': 4, 'batch_size': 4, 'seed': 0} | arguments
  fields = pipeline.PipelineOptions._fields
  options = {key: arguments.pop(key) for key in fields if key in arguments}
  return pipeline.make_iterator(
    source, pipeline.PipelineOptions(**options), **arguments
  )


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def labels(batches):
  return np.concatenate([b['label'] for b in batches]).tolist()


def same(batches, others):
  assert len(batches) == len(others)
  for one, two in zip(batches, others, strict=True):
    assert one.keys() == two.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], two[key])
  return True


def test_every_epoch_is_another_order_of_every_record():
  stream = labels(take(start(Numbered(12), seed=3), 9))
  epochs = [stream[i : i + 12] for i in (0, 12, 24)]
  assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_epoch_whose_end_divides_a_batch_loses_nothing():
  stream = labels(take(start(Numbered(10), batch_size=7), 10))
  for epoch in range(7):
    assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))


def test_a_batch_may_be_larger_than_the_data_set():
  (batch,) = take(start(Numbered(3), batch_size=8), 1)
  assert np.bincount(batch['label'], minlength=3).min() >= 2


def test_seeds_share_no_epoch():
  """Grain adds the epoch to its seed: unhashed, seed 1 would lag seed 0."""
  zero = labels(take(start(Numbered(12), seed=0), 9))
  one = labels(take(start(Numbered(12), seed=1), 9))
  epochs = [tuple(s[i : i + 12]) for s in (zero, one) for i in (0, 12, 24)]
  assert len(set(epochs)) == 6


def test_unshuffled_records_come_in_order():
  assert labels(take(start(Numbered(6), shuffle=False), 3)) == [
    0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5,
  ]  # fmt: skip


@pytest.mark.parametrize('process_count', [2, 4])
def test_the_images_do_not_depend_on_the_number_of_processes(process_count):
  options = {'flip': True, 'crop': 'random', 'seed': 5}
  source = synthetic.Synthetic(image_size=4, num_images=13)
  alone = take(start(source, batch_size=8, **options), 6)
  parts = [
    take(
      start(
        source,
        batch_size=8 // process_count,
        process_index=p,
        process_count=process_count,
        **options,
      ),
      6,
    )
    for p in range(process_count)
  ]
  together = [
    {key: np.concatenate([part[key] for part in batch]) for key in batch[0]}
    for batch in zip(*parts, strict=True)
  ]
  assert same(together, alone)


@pytest.mark.parametrize('rows', [[0, 1, 2, 3], [3, 1], np.array([2])])
def test_the_rows_that_are_named_are_those_of_the_global_batch(rows):
  """As a process reads them whose devices lie anywhere in the mesh."""
  whole = take(start(Numbered(10), flip=True), 4)
  part = take(start(Numbered(10), flip=True, rows=rows), 4)
  for all_rows, own in zip(whole, part, strict=True):
    np.testing.assert_array_equal(own['label'], all_rows['label'][rows])
    np.testing.assert_array_equal(own['image'], all_rows['image'][rows])


def test_a_restored_position_continues_exactly():
  source = synthetic.Synthetic(image_size=4, num_images=11)
  iterator = start(source, flip=True, crop='random')
  take(iterator, 5)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = take(iterator, 6)
  other = start(source, flip=True, crop='random')
  take(other, 2)  # whatever it did before, prefetching included
  other.set_state(state)
  assert same(take(other, 6), expected)


def test_a_position_survives_another_number_of_processes():
  one = start(Numbered(50), batch_size=8)
  take(one, 3)
  state, rest = one.get_state(), labels(take(one, 2))
  halves = [
    start(Numbered(50), batch_size=4, process_index=p, process_count=2)
    for p in (0, 1)
  ]
  for half in halves:
    half.set_state(state)
  pairs = zip(*[take(half, 2) for half in halves], strict=True)
  assert labels(itertools.chain.from_iterable(pairs)) == rest


@pytest.mark.parametrize('change', [{'seed': 1}, {'shuffle': False}])
def test_a_position_in_another_stream_is_refused(change):
  state = start(Numbered(9)).get_state()
  with pytest.raises(ValueError, match='belongs to the stream'):
    start(Numbered(9), **change).set_state(state)
  with pytest.raises(ValueError, match="'records': 9.*'records': 8"):
    start(Numbered(8)).set_state(state)


def test_half_of_the_images_are_flipped_and_never_their_labels():
  source = synthetic.Synthetic(image_size=4, num_images=400)
  plain = take(start(source, batch_size=400), 2)
  flipped = take(start(source, batch_size=400, flip=True), 2)
  counts = []
  for one, two in zip(plain, flipped, strict=True):
    np.testing.assert_array_equal(one['label'], two['label'])
    unchanged = (one['image'] == two['image']).all((1, 2, 3))
    mirrored = (one['image'][:, :, ::-1] == two['image']).all((1, 2, 3))
    assert (unchanged ^ mirrored).all()
    counts.append(mirrored.sum())
  # 5 standard deviations of a fair coin.
  assert all(abs(count - 200) < 50 for count in counts)
  assert (plain[0]['image'] != flipped[0]['image']).any()


def test_without_repeat_every_record_comes_once_remainder_included():
  iterator = start(Numbered(10), repeat=False, shuffle=False)
  batches = list(iterator)
  assert [len(b['label']) for b in batches] == [4, 4, 2]
  assert labels(batches) == list(range(10))
  assert batches[-1]['image'].shape == (2, 4, 4, 3)
  iterator.set_state({**iterator.get_state(), 'position': 0})
  assert labels(iterator) == list(range(10))


@pytest.mark.parametrize('pad', [False, True])
def test_all_processes_give_the_same_number_of_batches(pad):
  runs = [
    list(
      start(
        Numbered(10),
        batch_size=2,
        repeat=False,
        pad_remainder=pad,
        process_index=p,
        process_count=3,
      )
    )
    for p in range(3)
  ]
  assert [len(run) for run in runs] == [2, 2, 2]
  if pad:
    assert all(len(b['label']) == 2 for run in runs for b in run)
  seen = [
    b['label'][b['valid']] if pad else b['label'] for run in runs for b in run
  ]
  assert sorted(np.concatenate(seen).tolist()) == list(range(10))


def test_bad_records_are_replaced_named_and_counted(caplog):
  source = Numbered(200, bad=(7, 150))
  iterator = start(source, batch_size=50, max_skip_fraction=0.1)
  epoch = labels(take(iterator, 4))
  assert len(epoch) == 200 and not {7, 150} & set(epoch)
  assert len(set(epoch)) >= 196  # others replace them, drawn at random
  take(iterator, 8)  # named once, however often they come
  assert iterator.skipped['unreadable'] >= 6
  assert iterator.skipped['tried'] >= 606
  for name in ('file7.jpg', 'file150.jpg'):
    assert caplog.text.count(f'Skipped {name}: truncated') == 1
  assert iterator.get_state()['skipped'] == iterator.skipped


def test_replacements_are_the_same_after_a_restart():
  source = Numbered(30, bad=tuple(range(0, 30, 3)))
  iterator = start(source, max_skip_fraction=0.9)
  take(iterator, 3)
  state, expected = iterator.get_state(), take(iterator, 9)
  again = start(source, max_skip_fraction=0.9)
  again.set_state(state)
  assert same(take(again, 9), expected)
  assert again.skipped == iterator.skipped


def test_more_bad_records_than_allowed_stop_the_run():
  iterator = start(Numbered(100, bad=(3, 50, 80)), max_skip_fraction=0.02)
  message = '3 unreadable records .* max_skip_fraction=0.02; the last: '
  with pytest.raises(ValueError, match=message + 'file.*truncated'):
    take(iterator, 100)
  assert iterator.skipped['tried'] <= 103


def test_the_allowed_fraction_is_not_counted_too_early():
  """One bad record in the first batch is no 25 % of the data set."""
  iterator = start(Numbered(400, bad=(3, 4)), shuffle=False)
  assert len(take(iterator, 400)) == 400


def test_a_source_without_any_good_record_stops_at_once():
  with pytest.raises(ValueError, match='7 unreadable records and 0 below'):
    take(start(Numbered(9, bad=range(9))), 1)
  with pytest.raises(
    ValueError, match='min_side is 8, and 1000 records in a row'
  ):
    take(start(Numbered(9), min_side=8), 1)


def test_small_images_are_left_out_and_counted_apart():
  source = Numbered(40, sides={i: 3 for i in range(0, 40, 2)})
  iterator = start(source, min_side=4)
  assert all(label % 2 for label in labels(take(iterator, 30)))
  assert iterator.skipped['unreadable'] == 0
  assert 40 < iterator.skipped['too_small'] < 250


@pytest.mark.parametrize(
  ('options', 'kept'),
  [
    ({}, 'large'),
    ({'min_side': 0}, 'all'),
    ({'min_side': 3}, 'all'),
    ({'allow_enlarging': True}, 'all'),
    ({'allow_enlarging': True, 'min_side': 4}, 'large'),
  ],
)
def test_what_would_be_enlarged_is_left_out_or_said(options, kept, caplog):
  source = Numbered(40, sides={i: 3 for i in range(0, 40, 2)})
  image_notes._counts.cache_clear()  # It says each kind once.
  iterator = start(source, **options)
  labels_seen = set(labels(take(iterator, 30)))
  if kept == 'large':
    assert labels_seen == set(range(1, 40, 2))
    assert 'Left out 1 of ' in caplog.text and iterator.skipped['too_small']
  else:
    assert labels_seen == set(range(40))
    assert 'its 3 pixels were enlarged to 4' in caplog.text


def test_the_area_mean_reaches_the_batch(write_folder, tmp_path):
  write_folder(tmp_path, 6, classes=())
  source = folder.Folder(tmp_path)
  (batch,) = take(start(source, batch_size=6, shuffle=False, image_size=2), 1)
  assert batch['image'].shape == (6, 2, 2, 3)
  assert batch['image'].dtype == np.uint8 and batch['label'].dtype == np.int32
  for i in range(6):
    side = min(8 + i % 5, 9 + i % 3)
    square = source[i]['image'][:, (9 + i % 3 - side) // 2 :][:, :side]
    square = square[(8 + i % 5 - side) // 2 :][:side].astype(float)
    half = side / 2  # the quadrants, whose middle row may be shared
    weight = np.clip(half - np.arange(side), 0, 1) / half
    mean = np.einsum('y,x,yxc->c', weight, weight, square)
    assert np.abs(batch['image'][i, 0, 0] - mean).max() <= 0.5 + 1e-9


def test_worker_processes_change_nothing(write_folder, tmp_path, monkeypatch):
  """Pixels, order, position, replacements and counts."""
  write_folder(tmp_path, 20, bad=(3, 11))
  source = folder.Folder(tmp_path)
  options = {'flip': True, 'crop': 'random', 'max_skip_fraction': 0.5}
  options['worker_count'] = 0
  # Batches are handed over in pieces of two, two and one images.
  options['batch_size'] = 5
  monkeypatch.setattr(pipeline, 'PIECE_BYTES', 2 * 48)
  alone = start(source, **options)
  take(alone, 2)
  workers = start(source, **options | {'worker_count': 2})
  workers.set_state(alone.get_state())
  assert same(take(workers, 7), take(alone, 7))
  assert workers.get_state() == alone.get_state()
  assert workers.skipped['unreadable'] > 0
  workers.close()


def test_an_error_in_a_worker_reaches_the_run(write_folder, tmp_path):
  write_folder(tmp_path, 4, bad=range(4))
  iterator = start(folder.Folder(tmp_path), worker_count=1)
  with pytest.raises(ValueError, match=r'in a row.*\.png: .*cut off'):
    next(iterator)


class Late(Numbered):
  """Records that come late, and count how many are waited for at once."""

  def __init__(self, count):
    super().__init__(count)
    self.lock, self.waiting, self.most = threading.Lock(), 0, 0

  def __getitem__(self, i):
    with self.lock:
      self.waiting += 1
      self.most = max(self.most, self.waiting)
    time.sleep(0.002 * (i % 7))
    with self.lock:
      self.waiting -= 1
    return super().__getitem__(i)


@pytest.mark.parametrize('threads', [1, 3, 16])
def test_records_are_read_at_once_and_come_in_their_order(threads):
  late = Late(300)
  iterator = start(late, read_threads=threads, read_buffer=40, seed=2)
  assert same(take(iterator, 60), take(start(Numbered(300), seed=2), 60))
  iterator.close()
  assert late.most == threads


@pytest.mark.parametrize(
  ('threads', 'record_bytes', 'ready'),
  [(16, 1, 500), (16, 2**21, 256), (16, 2**26, 16), (128, 1, 500)],
)
def test_images_that_wait_for_their_batch_are_bounded_by_their_bytes(
  threads, record_bytes, ready
):
  """To the length of a run, which is read by one thread."""
  for count in (0, 4):
    reading = workers.Reading(threads, 500, count)
    options, length = workers.read_options(reading, record_bytes, 64)
    waiting = max(1, count) * options.prefetch_buffer_size * length
    assert ready <= waiting <= ready + max(1, count) * 2 * length
    assert max(1, count) * options.num_threads >= threads


def test_an_error_ends_the_reads_that_nobody_waits_for():
  source = Numbered(4, bad=range(4))
  iterator = start(source)
  with pytest.raises(ValueError, match='in a row'):
    next(iterator)
  assert not iterator._running


def test_shared_memory_does_not_grow_with_the_batch(tmp_path, monkeypatch):
  """16 workers that hand over 1,024 images of 256 pixels once took 12.9 GB."""
  monkeypatch.setattr(pipeline, '_SHARED_MEMORY', str(tmp_path))
  has = types.SimpleNamespace(free=2**29)
  monkeypatch.setattr(pipeline.shutil, 'disk_usage', lambda _: has)
  iterator = start(
    Numbered(4), image_size=256, batch_size=1024, worker_count=16
  )
  iterator._check_memory()
  has.free //= 2
  with pytest.raises(ValueError, match='about 504 MB of shared memory'):
    iterator._check_memory()


def test_too_little_shared_memory_is_said_before_it_kills(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(pipeline, '_SHARED_MEMORY', str(tmp_path))
  monkeypatch.setattr(
    pipeline.shutil, 'disk_usage', lambda _: types.SimpleNamespace(free=2**20)
  )
  # 2 workers of 4 batches of 4 images: 1.5 MB.
  iterator = start(Numbered(4), image_size=128, worker_count=2)
  with pytest.raises(ValueError, match='needs about 1 MB .* has 1 MB free'):
    next(iterator)
  few = start(Numbered(4), image_size=64, worker_count=2, min_side=0)
  assert next(few)['image'].shape == (4, 64, 64, 3)
  few.close()


def test_without_a_file_system_for_it_shared_memory_is_that_of_the_machine(
  monkeypatch,
):
  """As on macOS."""
  monkeypatch.setattr(pipeline, '_SHARED_MEMORY', '/nowhere')
  monkeypatch.setattr(pipeline.host_memory, 'total_bytes', lambda: 2**20)
  iterator = start(Numbered(4), image_size=128, worker_count=2)
  with pytest.raises(ValueError, match='1 MB of shared .* machine has 1 MB. L'):
    next(iterator)


def test_a_batch_larger_than_the_memory_is_refused_before_it_is_read(
  monkeypatch,
):
  monkeypatch.setattr(pipeline.host_memory, 'total_bytes', lambda: 4 * 48 - 1)
  iterator = start(Numbered(4))
  with pytest.raises(ValueError, match='batch_size=4 of 4 pix.* Lower batch_s'):
    next(iterator)
  monkeypatch.setattr(pipeline.host_memory, 'total_bytes', lambda: 4 * 48)
  assert next(iterator)['image'].shape == (4, 4, 4, 3)
  iterator.close()


ORPHANED = """
import multiprocessing, os
from cdm.data import pipeline, synthetic
if __name__ == '__main__':
  iterator = pipeline.make_iterator(
    synthetic.Synthetic(),
    pipeline.PipelineOptions(image_size=8, worker_count=1),
    batch_size=4, seed=0)
  next(iterator)
  children = multiprocessing.active_children()
  print(*[child.pid for child in children], flush=True)
  os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not os.path.exists('/proc/self'), reason='needs /proc')
def test_workers_do_not_outlive_a_killed_run(tmp_path):
  script = tmp_path / 'orphaned.py'
  script.write_text(ORPHANED, encoding='utf-8')
  # Not by a pipe: a worker that lived on would hold it open.
  with open(tmp_path / 'children', 'w+', encoding='utf-8') as file:
    environment = {**os.environ, 'PYTHONPATH': os.getcwd()}
    subprocess.run([sys.executable, script], stdout=file, env=environment)
    file.seek(0)
    children = [int(pid) for pid in file.read().split()]
  assert children
  deadline = time.time() + 20
  while alive := [pid for pid in children if _alive(pid)]:
    if time.time() > deadline:
      os.kill(alive[0], signal.SIGKILL)
      pytest.fail(f'{alive} outlived its parent')
    time.sleep(0.1)


def _alive(pid):
  try:
    with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
      return file.read().rsplit(')', 1)[1].split()[0] != 'Z'  # a zombie is dead
  except FileNotFoundError:
    return False


def test_crop_none_refuses_other_sizes():
  with pytest.raises(ValueError, match='expects 8x8 .* has 4x4'):
    next(start(Numbered(3), crop='none', image_size=8))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'source': Numbered(0)}, 'Numbered has no images'),
    ({'batch_size': 0}, 'batch_size is 0'),
    ({'worker_count': -1}, 'worker_count is -1'),
    ({'read_threads': 0}, 'read_threads is 0'),
    ({'read_threads': 5000}, 'read_threads is 5000; it must be at most 1024'),
    ({'read_buffer': 0}, 'read_buffer is 0'),
    ({'process_index': 2, 'process_count': 2}, 'process_index is 2'),
    ({'max_skip_fraction': 1.5}, 'max_skip_fraction is 1.5'),
    ({'pad_remainder': True}, 'needs repeat=False'),
    ({'crop': 'centre'}, "crop is 'centre'; known crops"),
    ({'image_size': 0}, 'image_size is 0'),
  ],
)
def test_impossible_arguments_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    start(**{'source': Numbered(4)} | change)


@pytest.mark.parametrize('worker_count', [0, 1])
def test_what_is_left_out_of_images_is_counted_here(
  tmp_path, write_folder, monkeypatch, worker_count
):
  """Worker processes hand it over with the pixels."""
  noted = []
  monkeypatch.setattr(
    pipeline.image_notes, 'count', lambda notes: noted.extend(notes)
  )
  for path in write_folder(tmp_path, 4, classes=()):
    image = Image.open(path)
    image.putalpha(7)
    image.save(path)
  options = pipeline.PipelineOptions(
    4, repeat=False, shuffle=False, worker_count=worker_count
  )
  batches = pipeline.make_iterator(
    folder.Folder(tmp_path), options, batch_size=2, seed=0
  )
  assert all(set(batch) == {'image', 'label'} for batch in batches)
  assert [(note.kind, note.name) for note in noted] == [
    ('alpha', str(tmp_path / f'{i:04d}.png')) for i in range(4)
  ]


class Unsteady(Numbered):
  """Its reads fail for a while, whoever reads: the folder remembers."""

  def __init__(self, count, folder, fail, times):
    super().__init__(count)
    self.folder, self.fail, self.times = folder, fail, times

  def __getitem__(self, i):
    mark = self.folder / str(i)
    with open(mark, 'ab') as file:
      file.write(b'x')
    if i % 3 == 0 and mark.stat().st_size <= self.times:
      self.fail()
    return super().__getitem__(i)


def no_answer():
  raise OSError(errno.EIO, 'Input/output error', '/data/shard-3')


def be_killed():
  os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
  ('worker_count', 'fail', 'times'),
  [(0, no_answer, 1), (0, no_answer, 3), (1, be_killed, 1)],
  ids=['a moment', 'until another reads', 'a killed worker'],
)
def test_reads_that_fail_for_a_while_change_no_batch(
  tmp_path, monkeypatch, worker_count, fail, times
):
  """Neither their images nor their order, and nothing counts as skipped."""
  # Below a second: three attempts, of which the last is another worker's.
  monkeypatch.setenv(storage_retry.VARIABLE, '0.9' if times > 1 else '60')
  monkeypatch.setattr(pipeline.workers, '_MOST_LOST_WORKERS', 9)
  count = 4 if fail is be_killed else 12
  sound = start(Numbered(count))
  source = Unsteady(count, tmp_path, fail, times)
  iterator = start(source, worker_count=worker_count)
  assert same(take(iterator, 4), take(sound, 4))
  assert iterator.get_state() == sound.get_state()
  assert iterator.skipped['unreadable'] == 0
  iterator.close()
  assert max(mark.stat().st_size for mark in tmp_path.iterdir()) > times


class Stale(Numbered):
  """Its open file answers no more; a copy opens the file anew."""

  def __init__(self, count):
    super().__init__(count)
    self.is_stale = True

  def __setstate__(self, state):
    self.__dict__ = state | {'is_stale': False}

  def __getitem__(self, i):
    if self.is_stale:
      raise OSError(errno.ESTALE, 'Stale file handle')
    return super().__getitem__(i)


def test_a_stale_file_is_opened_anew(monkeypatch):
  monkeypatch.setenv(storage_retry.VARIABLE, '2')
  assert same(take(start(Stale(8)), 2), take(start(Numbered(8)), 2))


def test_a_read_that_stays_wrong_is_no_unreadable_image(
  tmp_path, monkeypatch, write_folder
):
  """It would be replaced by another, and the run would not be the same."""
  monkeypatch.setenv(storage_retry.VARIABLE, '0.5')
  write_folder(tmp_path, 4)
  monkeypatch.setattr(pathlib.Path, 'read_bytes', lambda _: no_answer())
  iterator = start(folder.Folder(tmp_path))
  with pytest.raises(transient_errors.NotAnswering, match='/data/shard-3'):
    next(iterator)
  assert iterator.skipped['unreadable'] == 0
