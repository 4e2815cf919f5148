"""Room and time are told before the start, and a small disk is refused."""

import collections
import re

import pytest

from cdm.data import preparation_cost, prepare, synthetic

pytest.importorskip('array_record')
Usage = collections.namedtuple('Usage', 'total used free')


@pytest.fixture
def source():
  return synthetic.Synthetic(image_size=8, num_images=1200)


def test_the_size_that_is_told_is_that_of_the_shards(source, tmp_path):
  told = []
  prepare.prepare(source, size=8, out=tmp_path, say=told.append)
  (text,) = told
  found = re.match(r'1,200 images need about ([\d.]+) kB in (\S+) ', text)
  written = sum(p.stat().st_size for p in tmp_path.glob('*.array_record'))
  assert 0.7 < float(found[1]) * 1e3 / written < 1.25
  assert (
    found[2] == str(tmp_path)
    and 'free' in text
    and re.search(r'about \d+ s if', text)
  )
  prepare.prepare(source, size=8, out=tmp_path, say=told.append)
  assert len(told) == 1 and not list(tmp_path.glob('.*'))


def test_a_disk_that_is_too_small_is_refused_before_an_image_is_written(
  source, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    preparation_cost.shutil, 'disk_usage', lambda _: Usage(0, 0, 2**26)
  )
  with pytest.raises(ValueError, match='need about .* where 67.1 MB are free'):
    prepare.prepare(source, size=8, out=tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['index.json']
  few = synthetic.Synthetic(image_size=8, num_images=9)
  prepare.prepare(few, size=8, out=tmp_path / 'few')


def test_a_source_that_is_read_in_order_is_measured_at_its_start(tmp_path):
  packed = []

  def pack(i):
    packed.append(i)
    return b'x' * 100, None, []

  for in_order in (True, False):
    preparation_cost.check(
      tmp_path, pack, range(3200), in_order=in_order, say=print
    )
  assert packed == [*range(32), *range(0, 3200, 100)]


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [(0.1, '1 s'), (119, '119 s'), (3600, '60 minutes'), (36000, '10.0 hours')],
)
def test_a_time_is_told_in_the_unit_that_fits(seconds, text):
  assert preparation_cost._duration(seconds) == text
