"""A record in parts reads as one, and is cut without reading all of it."""

import json

import pytest

from cdm.reporting import jsonl, metric_writer, record_parts

PATH = metric_writer.SCALARS


@pytest.fixture
def small_parts(monkeypatch):
  monkeypatch.setattr(record_parts, 'MOST_BYTES', 80)


def write(workdir, *steps):
  with metric_writer.Reporter(
    workdir, tensorboard=False, quiet=True
  ) as reporter:
    for step in steps:
      reporter.scalars(step, {'loss': 1 / step})


def steps(workdir):
  return [row['step'] for row in metric_writer.read_scalars(workdir / PATH)]


def sizes(workdir):
  return {p.name: p.stat().st_size for p in record_parts.parts(workdir / PATH)}


def test_no_part_grows_beyond_its_size_and_together_they_are_the_record(
  tmp_path, small_parts
):
  write(tmp_path, *range(1, 6))
  write(tmp_path, *range(6, 14))
  found = sizes(tmp_path)
  assert list(found)[:2] == ['scalars.0001.jsonl', 'scalars.0002.jsonl']
  assert len(found) > 4 and all(size < 80 + 40 for size in found.values())
  assert steps(tmp_path) == list(range(1, 14))
  (tmp_path / 'scalars.backup.jsonl').write_text('{}', encoding='utf-8')
  assert sizes(tmp_path) == found


@pytest.mark.parametrize('at', [12, 9, 8, 3, 1, 0])
def test_a_resumed_record_equals_one_that_was_never_interrupted(
  tmp_path, small_parts, at
):
  write(tmp_path / 'whole', *range(1, 14))
  folder = tmp_path / 'resumed'
  write(folder, *range(1, 13))
  with metric_writer.Reporter(
    folder, tensorboard=False, quiet=True
  ) as reporter:
    reporter.resume(at)
    assert [row['step'] for row in reporter.rows()] == list(range(1, at + 1))
  write(folder, *range(at + 1, 14))
  assert steps(folder) == steps(tmp_path / 'whole')


def test_a_start_reads_only_what_comes_after_its_checkpoint(
  tmp_path, small_parts, monkeypatch
):
  write(tmp_path, *range(1, 60))
  read, files = jsonl.read, []

  def count(path, declared):
    files.append(path.name)
    return read(path, declared)

  monkeypatch.setattr(jsonl, 'read', count)
  with metric_writer.Reporter(
    tmp_path, tensorboard=False, quiet=True
  ) as reporter:
    reporter.resume(56)
    assert [row['step'] for row in reporter.rows(since=56)] == [56]
  assert len(set(files)) <= 3 < len(sizes(tmp_path)) / 4


def test_a_line_is_closed_after_some_seconds_and_the_next_opens_again(tmp_path):
  """A mounted bucket shows closed files only."""
  now = [0.0]
  record = record_parts.RecordParts(tmp_path / PATH, clock=lambda: now[0])
  for seconds, open_after in ((1, True), (28, True), (31, False), (32, True)):
    now[0] = seconds
    record.write(json.dumps({'step': seconds}) + '\n')
    assert (record._file is not None) == open_after
  record.close()
  assert steps(tmp_path) == [1, 28, 31, 32]


def test_a_part_that_a_kill_left_under_both_names_counts_once(
  tmp_path, small_parts
):
  """Object storage renames by copying and deleting."""
  write(tmp_path, 1, 2, 3)
  (tmp_path / PATH).write_bytes((tmp_path / 'scalars.0001.jsonl').read_bytes())
  write(tmp_path, 4, 5)
  assert steps(tmp_path) == [1, 2, 3, 4, 5]
