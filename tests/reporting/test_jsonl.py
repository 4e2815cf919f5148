"""Lines that a kill may tear: what is whole is kept, the rest is as none."""

import pytest

from cdm.reporting import jsonl


def test_a_torn_line_is_not_read_and_not_added_to(tmp_path):
  path = tmp_path / 'rows.jsonl'
  assert jsonl.read(path) == []
  jsonl.append(path, [{'a': 1}, [2, float('inf')]])
  with path.open('a') as file:
    file.write('{"a": 3, "to')
  assert jsonl.read(path) == [{'a': 1}, [2, float('inf')]]
  jsonl.append(path, [{'a': 4}])
  assert jsonl.read(path) == [{'a': 1}, [2, float('inf')], {'a': 4}]


def test_a_file_of_a_torn_line_alone_is_empty(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_text('{"a"')
  assert jsonl.read(path) == []
  jsonl.mend(path)
  assert path.read_text() == ''


def test_nothing_is_written_of_what_is_refused(tmp_path):
  path = tmp_path / 'rows.jsonl'
  with pytest.raises(ValueError, match='not JSON compliant'):
    jsonl.append(path, [{'a': 1}, {'a': float('nan')}], allow_nan=False)
  assert not path.exists()
  with pytest.raises(FileNotFoundError):
    jsonl.append(tmp_path / 'none' / 'rows.jsonl', [{}])
