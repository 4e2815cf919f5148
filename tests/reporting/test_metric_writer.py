"""The record of a run: complete after any end, and equal after a resume."""

import errno
import json
import math

import numpy as np
import pytest
from PIL import Image
from support import failing_disks, small_disks
from support.terminals import Terminal

from cdm.distributed import exit_codes
from cdm.reporting import (
  image_files,
  metric_writer,
  record_parts,
  tensorboard,
)


def quiet(workdir, **fields):
  return metric_writer.Reporter(
    workdir, **{'tensorboard': False, 'quiet': True, **fields}
  )


def rows(workdir):
  return metric_writer.read_scalars(workdir / metric_writer.SCALARS)


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
  """No close, no flush: what a kill would leave."""
  reporter = quiet(tmp_path)
  reporter.scalars(10, {'loss': np.float32(0.25), 'grad_norm': 3})
  text = (tmp_path / 'scalars.jsonl').read_text(encoding='utf-8')
  assert json.loads(text) == {'step': 10, 'loss': 0.25, 'grad_norm': 3.0}
  assert text.endswith('\n')
  reporter.close()


def test_numbers_come_back_to_the_last_bit(tmp_path):
  values = {f'v{k}': 1 / k for k in range(1, 50)} | {'big': 1e300}
  with quiet(tmp_path) as reporter:
    reporter.scalars(1, values)
  assert rows(tmp_path) == [{'step': 1, **values}]


def test_what_is_not_finite_stays_valid_json(tmp_path):
  with quiet(tmp_path) as reporter:
    reporter.scalars(1, {'a': math.nan, 'b': -math.inf, 'c': 1.0})

  def refuse(name):
    raise AssertionError(f'{name} is not JSON')

  text = (tmp_path / 'scalars.jsonl').read_text(encoding='utf-8')
  found = json.loads(text, parse_constant=refuse)
  assert found == {'step': 1, 'a': None, 'b': None, 'c': 1.0}


def test_a_torn_last_line_is_left_out_and_written_over(tmp_path):
  path = tmp_path / 'scalars.jsonl'
  path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo', encoding='utf-8')
  assert rows(tmp_path) == [{'step': 1, 'loss': 2.0}]
  with quiet(tmp_path) as reporter:
    reporter.scalars(3, {'loss': 1.0})
  assert [row['step'] for row in rows(tmp_path)] == [1, 3]


def test_a_damaged_line_is_named_and_the_others_are_used(tmp_path, caplog):
  damaged = b'hello', b'{"step": "2"}', b'\xff', b'', b'{"loss": 1.0}'
  lines = b'\n'.join((b'{"step": 1}', *damaged, b'{"step": 3}', b'{"st'))
  (tmp_path / 'scalars.jsonl').write_bytes(lines)
  assert [row['step'] for row in rows(tmp_path)] == [1, 3]
  assert "line 3, is damaged: its value['step'] is '2', not an" in caplog.text
  assert '4 damaged lines are left out in all' in caplog.text
  with quiet(tmp_path) as reporter:
    reporter.resume(3)
  assert (tmp_path / 'scalars.jsonl').read_bytes() == (
    b'{"step": 1}\n{"step": 3}\n'
  )


def test_resuming_cuts_the_record_back_to_the_checkpoint(tmp_path):
  with quiet(tmp_path) as reporter:
    for step in (10, 20, 20, 30, 40):
      reporter.scalars(step, {'loss': 1 / step})
  whole = (tmp_path / 'scalars.jsonl').read_bytes()
  with quiet(tmp_path) as reporter:
    reporter.resume(20)
    assert [row['step'] for row in rows(tmp_path)] == [10, 20, 20]
    for step in (30, 40):
      reporter.scalars(step, {'loss': 1 / step})
  assert (tmp_path / 'scalars.jsonl').read_bytes() == whole


def test_a_grid_is_the_picture_that_was_given(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
  with quiet(tmp_path) as reporter:
    path = reporter.grid(500, 'samples', image)
  assert path == tmp_path / 'grids' / 'samples_00000500.png'
  np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
  assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_inactive_reporter_touches_nothing(tmp_path):
  with metric_writer.Reporter(tmp_path / 'run', active=False) as reporter:
    reporter.resume(3)
    reporter.scalars(1, {'loss': 1.0})
    reporter.grid(1, 'samples', np.zeros((2, 2, 3), np.uint8))
    reporter.say('nothing')
    reporter.start_progress(total=3, step=0, unit_size=1)
    reporter.progress(1, 0.5)
  assert not (tmp_path / 'run').exists()


def test_a_work_directory_that_cannot_be_written_is_one_clear_error(tmp_path):
  (tmp_path / 'file').write_text('in the way', encoding='utf-8')
  with pytest.raises(OSError, match='Cannot write .*Not a directory.*workdir'):
    quiet(tmp_path / 'file' / 'run')


def test_a_full_disk_is_one_clear_error(tmp_path):
  """The kernel refuses to let a file grow, as it does when the disk is full."""
  reporter = quiet(tmp_path)
  full = small_disks.files_of_at_most(4)
  with full, pytest.raises(OSError, match='File too large. Free space'):
    reporter.scalars(1, {'loss': 1.0})


def test_a_terminal_gets_a_bar_with_rate_eta_and_loss(tmp_path):
  stream = Terminal()
  with metric_writer.Reporter(
    tmp_path, tensorboard=False, stream=stream
  ) as reporter:
    reporter.start_progress(total=40, step=10, unit_size=16)
    for step in range(11, 31):
      reporter.progress(step, 0.5)
    reporter.say('a line between')
    reporter.progress(40, 0.25)
  text = stream.getvalue()
  assert '40/40' in text and '100%' in text
  assert 'loss=0.25' in text and 'img/s=' in text and 'step/s' in text
  assert 'a line between\n' in text


@pytest.mark.parametrize('code', [errno.EIO, errno.ENOSPC])
def test_a_line_whose_write_failed_half_way_is_there_once(
  tmp_path, monkeypatch, code
):
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '5')
  opener = failing_disks.Opener(0, code)
  for module in (record_parts, tensorboard):
    monkeypatch.setattr(module, 'open', opener, raising=False)
  with metric_writer.Reporter(tmp_path, quiet=True) as reporter:
    for step in range(4):
      opener.failures = step % 3
      reporter.scalars(step, {'loss': step / 8})
      assert opener.failures == 0
  rows = metric_writer.read_scalars(tmp_path / metric_writer.SCALARS)
  assert rows == [{'step': n, 'loss': n / 8} for n in range(4)]


@pytest.mark.parametrize(
  ('code', 'message', 'ending'),
  [
    (errno.EIO, 'scalars.jsonl failed again', exit_codes.NO_STORAGE),
    # To start again would not free space.
    (errno.ENOSPC, 'No space left on device', exit_codes.BAD_INPUT),
  ],
)
def test_a_record_that_cannot_be_written_for_long_ends_with_its_code(
  tmp_path, monkeypatch, code, message, ending
):
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '0.2')
  opener = failing_disks.Opener(0, code)
  monkeypatch.setattr(record_parts, 'open', opener, raising=False)
  with metric_writer.Reporter(
    tmp_path, tensorboard=False, quiet=True
  ) as reporter:
    opener.failures = 10**6
    with pytest.raises(OSError, match=message) as caught:
      reporter.scalars(1, {'loss': 1.0})
  assert opener.failures < 10**6 - 2  # It was tried more than once.
  assert exit_codes.classify(caught.value) is ending


def test_a_grid_waits_until_there_is_space(tmp_path, monkeypatch):
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '5')
  write, calls = image_files.write_png, []

  def full_at_first(path, image):
    calls.append(path)
    if len(calls) < 3:
      raise OSError(errno.ENOSPC, 'No space left on device', str(path))
    write(path, image)

  monkeypatch.setattr(image_files, 'write_png', full_at_first)
  with metric_writer.Reporter(tmp_path, quiet=True) as reporter:
    path = reporter.grid(3, 'samples', np.zeros((4, 4, 3), np.uint8))
  assert len(calls) == 3 and path.exists()
