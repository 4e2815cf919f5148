import os

import pytest

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import parquet_rows
from cdm.data.forms.parquet_rows import Place, RowGroup

pa = pytest.importorskip('pyarrow')
pq = pytest.importorskip('pyarrow.parquet')


@pytest.fixture
def place(tmp_path):
  """A row group of 40 rows of 1,000 bytes, which does not shrink."""
  path = str(tmp_path / 'a.parquet')
  rows = [os.urandom(998) + bytes([n, n]) for n in range(40)]
  table = pa.table({'image': [{'bytes': row} for row in rows]})
  pq.write_table(table, path)
  parquet_rows.forget()
  return Place(path, 0, 'image.bytes')


@pytest.fixture
def decoded(monkeypatch):
  """Counts the rows that are decoded."""
  counts, stream = [0], parquet_rows._stream

  def counting(place):
    for batch in stream(place):
      counts[0] += len(batch)
      yield batch

  monkeypatch.setattr(parquet_rows, '_stream', counting)
  return counts


def test_reading_in_order_decodes_each_row_once(place, decoded):
  for n in range(40):
    assert parquet_rows.read(place, n)[-1] == n
  assert decoded == [40]


def test_reading_one_row_decodes_those_before_it_only(place, decoded):
  assert parquet_rows.read(place, 5)[-1] == 5
  assert decoded == [8]


def test_a_large_row_group_is_held_in_part(place, decoded):
  group = RowGroup(place, most_bytes=9_000)
  for n in range(40):
    assert group.read(n)[-1] == n
    assert group.held_bytes <= 9_000
  assert decoded == [40]
  assert group.read(0)[-1] == 0 and decoded == [44]


def test_the_oldest_row_groups_are_dropped(place, monkeypatch):
  monkeypatch.setattr(parquet_rows, 'MOST_GROUPS', 3)
  for n in range(6):
    path = f'{place.path}{n}'
    os.link(place.path, path)
    parquet_rows.read(place._replace(path=path), 0)
  kept = [each.path[-1] for each in parquet_rows._kept.groups]
  assert kept == ['3', '4', '5']


def test_a_row_beyond_the_end_is_damage(place):
  with pytest.raises(DamagedFile, match='Row group 0 of .* after 40 rows'):
    parquet_rows.read(place, 40)
  assert parquet_rows.read(place, 39)[-1] == 39


def test_one_changed_bit_is_noticed_where_pages_have_checksums(tmp_path):
  path, row = str(tmp_path / 'a.parquet'), os.urandom(1000)
  table = pa.table({'image': [row]})
  pq.write_table(
    table, path, compression='none', use_dictionary=False,
    write_statistics=False, write_page_checksum=True,
  )  # fmt: skip
  with open(path, 'rb+') as file:
    at = file.read().index(row) + 500
    file.seek(at)
    file.write(bytes([row[500] ^ 1]))
  with pytest.raises(OSError, match='CRC'):
    parquet_rows.read(Place(path, 0, 'image'), 0)
