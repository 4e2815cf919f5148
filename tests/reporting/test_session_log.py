"""What work took: a line per session."""

import json
import time

import pytest

from cdm.reporting import session_log


def test_sessions_add_up_and_the_largest_peak_counts(tmp_path):
  assert session_log.total(tmp_path) is None
  for seconds in (0.05, 0.1):
    with session_log.Session(tmp_path, 'rest'):
      time.sleep(seconds)
  total = session_log.total(tmp_path)
  assert 0.149 <= total['seconds'] < 5
  rows = (tmp_path / session_log.FILE).read_text(encoding='utf-8').splitlines()
  rows = [json.loads(row) for row in rows]
  assert [row['what'] for row in rows] == ['rest', 'rest']
  assert 0.1 <= rows[1]['seconds'] < 5
  assert total['peak_host_bytes'] == max(r['peak_host_bytes'] for r in rows)


def test_a_session_that_fails_is_counted_too(tmp_path):
  with pytest.raises(KeyboardInterrupt), session_log.Session(tmp_path, 'work'):
    raise KeyboardInterrupt
  assert session_log.total(tmp_path) is not None


def test_a_line_torn_by_a_kill_does_not_spoil_the_next(tmp_path):
  with session_log.Session(tmp_path, 'first'):
    pass
  with open(tmp_path / session_log.FILE, 'a', encoding='utf-8') as file:
    file.write('{"what": "tor')
  with session_log.Session(tmp_path, 'second'):
    pass
  lines = (tmp_path / session_log.FILE).read_text(encoding='utf-8').splitlines()
  assert [json.loads(line)['what'] for line in lines] == ['first', 'second']


def test_what_was_refused_leaves_no_line(tmp_path):
  with session_log.Session(tmp_path, 'work') as session:
    session.forget()
  assert not any(tmp_path.iterdir())


def test_a_line_that_cannot_be_written_does_not_hide_the_error(tmp_path):
  with pytest.raises(KeyError), session_log.Session(tmp_path / 'no', 'work'):
    raise KeyError
  with pytest.raises(FileNotFoundError):
    with session_log.Session(tmp_path / 'no', 'work'):
      pass


def test_the_peak_is_in_bytes(tmp_path):
  """An interpreter with NumPy holds more than 10 MB and less than 1 TB."""
  before = session_log.peak_host_bytes()
  assert 1e7 < before < 1e12
  block = bytearray(300_000_000)
  block[::4096] = b'x' * len(block[::4096])  # touch every page
  assert session_log.peak_host_bytes() >= min(before + 1, 3e8)
