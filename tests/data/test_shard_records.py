"""Records of many shards, of which few are open at a time."""

import concurrent.futures
import os
import pickle
import subprocess
import sys

import pytest

from cdm.data import shard_records, shard_writer
from cdm.data.shard_records import Part, ShardRecords

pytest.importorskip('array_record')
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
COUNT = 40  # shards of three records


def open_files():
  return len(os.listdir('/dev/fd'))


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  folder = tmp_path_factory.mktemp('shards')
  made = [str(folder / f'{n}.array_record') for n in range(COUNT)]
  for n, path in enumerate(made):
    with shard_writer.new_shard(path) as write:
      for i in range(3):
        write(b'%d' % (3 * n + i))
  return made


def whole(paths):
  return ShardRecords([Part(path, 3) for path in paths])


def test_records_of_all_parts_follow_each_other(paths):
  parts = [Part(paths[2], 2, 1), Part(paths[0], 0), Part(paths[5], 1)]
  records = ShardRecords(parts)
  assert list(records) == [b'7', b'8', b'15'] and len(records) == 3
  assert list(pickle.loads(pickle.dumps(records))) == list(records)
  for i in (3, -1):
    with pytest.raises(IndexError, match=f'record {i} of 3'):
      records[i]
  assert shard_records.counted(paths) == [Part(path, 3) for path in paths]


def test_the_shard_that_was_not_read_for_longest_is_closed(paths, monkeypatch):
  monkeypatch.setattr(shard_records, 'most_open', lambda: 10)
  before, records = open_files(), whole(paths)
  for i in range(len(records)):
    assert records[i] == b'%d' % i
    assert open_files() <= before + 10
  opened, reader = [], shard_records.reader_class()

  def noting():
    return lambda path, **options: (
      opened.append(path),
      reader(path, **options),
    )[1]

  monkeypatch.setattr(shard_records, 'reader_class', noting)
  records[3 * 39], records[3 * 0], records[3 * 39], records[3 * 38]
  assert opened == [paths[0]]
  del records
  assert open_files() == before


def test_several_sets_share_the_files_that_may_be_open(paths, monkeypatch):
  monkeypatch.setattr(shard_records, 'most_open', lambda: 24)
  before, two = open_files(), (whole(paths), whole(paths))
  for i in range(len(two[0])):
    assert two[0][i] == two[1][i]
  assert open_files() <= before + 24


def test_many_threads_read_the_right_records_while_shards_are_closed(
  paths, monkeypatch
):
  monkeypatch.setattr(shard_records, 'most_open', lambda: 8)
  records = whole(paths)
  wanted = [7 * i % len(records) for i in range(2000)]
  with concurrent.futures.ThreadPoolExecutor(16) as threads:
    assert list(threads.map(records.__getitem__, wanted)) == [
      b'%d' % i for i in wanted
    ]


LIMITED = """
import resource, sys
from cdm.data import pipeline, shard_records
from cdm.data.shard_records import Part, ShardRecords
from cdm.data.source import element
import numpy as np
class Source:
  num_classes, class_names, fingerprint = 0, (), 'x'
  def __init__(self, paths):
    self.records = ShardRecords([Part(path, 3) for path in paths])
  def __len__(self): return len(self.records)
  def __getitem__(self, i):
    return element(np.full((4, 4, 3), int(self.records[i]), np.uint8), 0)
import os
low = len(os.listdir('/dev/fd')) + 25
resource.setrlimit(resource.RLIMIT_NOFILE, (low, low))
options = pipeline.PipelineOptions(image_size=4)
batches = pipeline.make_iterator(
  Source(sys.argv[1:]), options, batch_size=60, seed=0
)
images = [image for _ in range(2) for image in next(batches)['image']]
print(len({int(image[0, 0, 0]) for image in images}))
"""


def test_a_limit_that_cannot_be_raised_is_enough(paths):
  """Here 25 files beside those of the start, for an epoch of forty shards."""
  done = subprocess.run(
    [sys.executable, '-c', LIMITED, *paths],
    cwd=ROOT,
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  assert done.stdout == '120\n', done.stderr
