"""Lines that a kill may tear: what is whole is kept, the rest is as none."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from support import failing_disks

from cdm.reporting import jsonl

SQUARES = [{'n': n, 'square': n * n} for n in range(6)]


def test_a_torn_line_is_not_read_and_not_added_to(tmp_path):
  path = tmp_path / 'rows.jsonl'
  assert jsonl.read(path) == []
  jsonl.append(path, [{'a': 1}, [2, float('inf')]])
  with path.open('a', encoding='utf-8') as file:
    file.write('{"a": 3, "to')
  assert jsonl.read(path) == [{'a': 1}, [2, float('inf')]]
  jsonl.append(path, [{'a': 4}])
  assert jsonl.read(path) == [{'a': 1}, [2, float('inf')], {'a': 4}]


def test_a_file_of_a_torn_line_alone_is_empty(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_text('{"a"', encoding='utf-8')
  assert jsonl.read(path) == []
  jsonl.remove_incomplete_line(path)
  assert path.read_text(encoding='utf-8') == ''


def test_damaged_rows_are_named_and_computed_again(tmp_path, caplog):
  path = tmp_path / 'rows.jsonl'
  jsonl.append(path, SQUARES[:5])
  lines = path.read_bytes().split(b'\n')
  lines[1:5] = b'{"n": 1, "squ', b'', b'{"n": 2}', b'{"n": "\xff"}'
  path.write_bytes(b'\n'.join(lines))
  rows = squares(path, declared={'n': int, 'square': int})
  assert rows.rows == {0: SQUARES[0]} and rows.missing(range(3)) == [1, 2]
  for line in (2, 4, 5):
    assert f'rows.jsonl, line {line}, is damaged' in caplog.text
  assert "has no 'square'. The line is left out." in caplog.text
  rows.append(SQUARES[1:3])
  assert squares(path, declared={'n': int, 'square': int}).rows == {
    n: SQUARES[n] for n in range(3)
  }


def test_nothing_is_written_of_what_is_refused(tmp_path):
  path = tmp_path / 'rows.jsonl'
  with pytest.raises(ValueError, match='not JSON compliant'):
    jsonl.append(path, [{'a': 1}, {'a': float('nan')}], allow_nan=False)
  assert not path.exists()
  with pytest.raises(FileNotFoundError):
    jsonl.append(tmp_path / 'none' / 'rows.jsonl', [{}])


def squares(path, **given):
  return jsonl.ResumableRows(path, lambda row: row['n'], **given)


def test_rows_are_found_again_and_the_rest_is_missing(tmp_path):
  path = tmp_path / 'new' / 'rows.jsonl'
  rows = squares(path)
  assert rows.missing(range(4)) == [0, 1, 2, 3] and not path.parent.exists()
  rows.append(SQUARES[1:3])
  again = squares(path)
  assert again.rows == rows.rows == {1: SQUARES[1], 2: SQUARES[2]}
  assert again.missing(range(4)) == [0, 3]
  complete = again.missing(range(4), lambda row: row['square'] > 1)
  assert complete == [0, 1, 3]


def test_a_row_is_at_once_what_it_is_after_a_restart(tmp_path):
  rows = jsonl.ResumableRows(tmp_path / 'rows.jsonl', lambda row: row[0])
  rows.append([(1, {2: (0.1, float('inf'))})])
  assert rows.rows == {1: [1, {'2': [0.1, float('inf')]}]}
  with pytest.raises(ValueError, match='not JSON compliant'):
    squares(tmp_path / 'finite', allow_nan=False).append(
      [{'n': 0, 'square': float('nan')}]
    )
  assert not (tmp_path / 'finite').exists()


def test_the_later_of_two_rows_counts_unless_they_are_merged(tmp_path):
  path = tmp_path / 'rows.jsonl'
  for row in ({'n': 1, 'a': 1}, {'n': 2}, {'n': 1, 'b': 2}):
    squares(path).append([row])
  assert squares(path).rows == {1: {'n': 1, 'b': 2}, 2: {'n': 2}}
  both = squares(path, merge=lambda earlier, later: earlier | later)
  assert both.rows[1] == {'n': 1, 'a': 1, 'b': 2}
  both.append([{'n': 1, 'c': 3}])
  assert both.rows[1] == {'n': 1, 'a': 1, 'b': 2, 'c': 3}


def test_rows_of_other_settings_are_ignored_or_refused(tmp_path):
  path = tmp_path / 'rows.jsonl'
  jsonl.append(path, [{'seed': 0, 'n': 1}, {'seed': 1, 'n': 2}])

  def of_seed_1(row):
    return row['n'] if row['seed'] == 1 else None

  def refusing(row):
    if row['seed'] != 1:
      raise ValueError(f'{path} holds rows of seed {row["seed"]}.')
    return row['n']

  assert list(jsonl.ResumableRows(path, of_seed_1).rows) == [2]
  with pytest.raises(ValueError, match='holds rows of seed 0'):
    jsonl.ResumableRows(path, refusing)
  assert len(jsonl.read(path)) == 2


def test_all_files_of_a_pattern_are_read_and_removed(tmp_path):
  folder, given = tmp_path / 'rows', dict(pattern='process-*.jsonl')
  folder.mkdir()
  for n in range(3):
    jsonl.append(folder / f'process-{n}.jsonl', [SQUARES[n]])
  rows = squares(folder / 'process-0.jsonl', **given)
  assert rows.missing(range(6)) == [3, 4, 5]
  (folder / 'other').touch()
  rows.remove()
  assert [path.name for path in folder.iterdir()] == ['other']
  (folder / 'other').unlink()
  squares(folder / 'process-0.jsonl', **given).remove()
  assert not folder.exists()
  squares(folder / 'process-0.jsonl', **given).remove()


KILLED = """
import os, signal, sys
from cdm.reporting import jsonl

class Torn:
  def __init__(self, file):
    self.file = file
  def __enter__(self):
    return self
  def __exit__(self, *error):
    self.file.close()
  def write(self, text):
    self.file.write(text[:-4])  # The first row is whole, the second is torn.
    self.file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

rows = jsonl.ResumableRows(sys.argv[1], lambda row: row['n'])
rows.append([{'n': 0, 'square': 0}, {'n': 1, 'square': 1}])
def torn(*given, **how):
  file = open(*given, **how)
  return Torn(file) if 'a' in given else file
jsonl.open = torn
rows.append([{'n': 2, 'square': 4}, {'n': 3, 'square': 9}])
"""


def test_a_job_killed_within_an_append_continues(tmp_path):
  path = tmp_path / 'rows.jsonl'
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  done = subprocess.run([sys.executable, '-c', KILLED, path], env=environment)
  assert done.returncode == -signal.SIGKILL
  assert path.read_text(encoding='utf-8').endswith(
    '"square": 4}\n{"n": 3, "square":'
  )
  rows = squares(path)
  assert rows.missing(range(6)) == [3, 4, 5]
  rows.append(SQUARES[3:])
  assert squares(path).rows == rows.rows == dict(enumerate(SQUARES))
  assert jsonl.read(path) == SQUARES


PAIR = """
import json, pathlib, sys
from cdm.distributed import collectives, initialize
from cdm.reporting import jsonl

rank = int(sys.argv[2])
initialize.join(sys.argv[1], 2, rank)
disk = pathlib.Path(sys.argv[3]) / str(rank)
asked = []
def is_complete(row):
  asked.append(row['n'])
  return row['n'] != 1
rows = jsonl.ResumableRows(disk / 'rows.jsonl', lambda row: row['n'])
missing = rows.missing(range(5), is_complete)
given = [missing[i] for i in collectives.local_indices(len(missing))]
rows.append([{'n': n, 'square': n * n} for n in given])
rows.append([{'n': 5, 'square': 25, 'by': rank}])  # All give the same row.
told = json.dumps([missing, asked, list(rows.rows.values())])
disk.with_suffix('.json').write_text(told)
"""


def test_two_processes_hold_the_rows_of_the_disk_of_the_first(tmp_path):
  for rank, known in enumerate(([0, 1], [4])):
    (tmp_path / str(rank)).mkdir()
    file = tmp_path / str(rank) / 'rows.jsonl'
    jsonl.append(file, [SQUARES[n] for n in known])
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  words = [sys.executable, '-c', PAIR, address]
  environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
  running = [
    subprocess.Popen(
      [*words, str(rank), str(tmp_path)],
      env=environment | {'XLA_FLAGS': ''},
    )
    for rank in range(2)
  ]
  try:
    assert [process.wait(timeout=120) for process in running] == [0, 0]
  finally:
    for process in running:
      process.kill()
  first, second = (
    json.loads((tmp_path / f'{rank}.json').read_text(encoding='utf-8'))
    for rank in range(2)
  )
  assert first[0] == second[0] == [1, 2, 3, 4]
  assert (first[1], second[1]) == ([0, 1], [])
  assert first[2] == second[2]
  expected = [*SQUARES[:5], SQUARES[5] | {'by': 0}]
  assert sorted(first[2], key=lambda row: row['n']) == expected
  assert jsonl.read(tmp_path / '1' / 'rows.jsonl') == [SQUARES[4]]
  assert len(jsonl.read(tmp_path / '0' / 'rows.jsonl')) == 2 + 4 + 1


def test_rows_whose_write_failed_half_way_are_there_once(tmp_path, monkeypatch):
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '5')
  path = tmp_path / 'rows.jsonl'
  jsonl.append(path, SQUARES[:1])
  opener = failing_disks.Opener(2)
  monkeypatch.setattr(jsonl, 'open', opener, raising=False)
  jsonl.append(path, SQUARES[1:5])  # Its half is more than a whole line.
  assert opener.failures == 0
  monkeypatch.undo()
  assert jsonl.read(path) == SQUARES[:5]


def test_several_processes_exchange_rows_now_and_then(tmp_path, monkeypatch):
  """The clock of process 0 decides for all: here ten seconds for a batch."""
  rows, now, told = squares(tmp_path / 'rows.jsonl'), [0.0], []
  monkeypatch.setattr(jsonl.collectives, 'process_count', lambda: 2)
  monkeypatch.setattr(jsonl.collectives, 'gather_objects', lambda x: [x, []])
  monkeypatch.setattr(
    jsonl.collectives, 'broadcast_from_first', lambda x: told.append(x) or x
  )
  monkeypatch.setattr(jsonl.time, 'monotonic', lambda: now[0])
  rows._since, written = 0.0, []
  for n in range(20):
    now[0] += 10.0
    rows.add([{'n': n, 'square': n * n}])
    written.append(len(jsonl.read(tmp_path / 'rows.jsonl')))
  assert written == [1] * 6 + [7] * 6 + [13] * 6 + [19] * 2
  assert told == [6] * 4
  rows.flush()
  assert [row['n'] for row in jsonl.read(tmp_path / 'rows.jsonl')] == list(
    range(20)
  )
  assert list(rows.rows) == list(range(20))


def test_one_process_writes_every_row_at_once(tmp_path):
  rows = squares(tmp_path / 'rows.jsonl')
  for n in range(3):
    rows.add([SQUARES[n]])
    assert len(jsonl.read(tmp_path / 'rows.jsonl')) == n + 1
  rows.flush()
  assert jsonl.read(tmp_path / 'rows.jsonl') == SQUARES[:3]
