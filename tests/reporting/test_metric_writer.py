"""The record of a run: complete after any end, and equal after a resume."""

import io
import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from support.terminals import Clock, Terminal

from cdm.reporting import metric_writer, tensorboard
from cdm.training import step_timer


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
  text = (tmp_path / 'scalars.jsonl').read_text()
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

  text = (tmp_path / 'scalars.jsonl').read_text()
  found = json.loads(text, parse_constant=refuse)
  assert found == {'step': 1, 'a': None, 'b': None, 'c': 1.0}


def test_a_torn_last_line_is_left_out_and_written_over(tmp_path):
  path = tmp_path / 'scalars.jsonl'
  path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
  assert rows(tmp_path) == [{'step': 1, 'loss': 2.0}]
  with quiet(tmp_path) as reporter:
    reporter.scalars(3, {'loss': 1.0})
  assert [row['step'] for row in rows(tmp_path)] == [1, 3]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
  (tmp_path / 'scalars.jsonl').write_text('{"step": 1}\nhello\n{"step": 3}\n')
  with pytest.raises(ValueError, match="line 2 is not JSON: 'hello'"):
    rows(tmp_path)


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
  (tmp_path / 'file').write_text('in the way')
  with pytest.raises(OSError, match='Cannot write .*Not a directory.*workdir'):
    quiet(tmp_path / 'file' / 'run')


def test_a_full_disk_is_one_clear_error():
  reporter = quiet_on_full_disk()
  with pytest.raises(OSError, match='No space left on device. Free space'):
    reporter.scalars(1, {'loss': 1.0})


def quiet_on_full_disk():
  reporter = metric_writer.Reporter('nowhere', active=False)
  reporter._active = True
  reporter._file = open('/dev/full', 'a', buffering=1)
  return reporter


def test_tensorboard_shows_the_same_numbers_and_pictures(tmp_path):
  """Read back with TensorBoard's own reader."""
  pytest.importorskip('tensorflow')
  from tensorboard.backend.event_processing import event_file_loader
  from tensorboard.util import tensor_util

  image = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
  with metric_writer.Reporter(tmp_path, quiet=True) as reporter:
    reporter.scalars(100, {'loss': 0.5, 'learning_rate': 1e-4})
    reporter.grid(100, 'samples', image)
  (path,) = (tmp_path / 'tensorboard').iterdir()
  scalars, pictures = {}, {}
  for event in event_file_loader.EventFileLoader(str(path)).Load():
    for value in event.summary.value:
      content = tensor_util.make_ndarray(value.tensor)
      kind = value.metadata.plugin_data.plugin_name
      (scalars if kind == 'scalars' else pictures)[value.tag] = content
      assert event.step == 100
  assert scalars == {'loss': np.float32(0.5), 'learning_rate': np.float32(1e-4)}
  _, _, png = pictures['samples']
  np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), image)


def test_tensorboard_forgets_what_a_restart_undid(tmp_path):
  """Steps 4 and 5 come twice; the second time counts, and 6 is gone."""
  pytest.importorskip('tensorflow')
  from tensorboard.backend.event_processing import plugin_event_accumulator
  from tensorboard.util import tensor_util

  for start, end in ((1, 6), (4, 5)):
    with metric_writer.Reporter(tmp_path, quiet=True) as reporter:
      reporter.resume(start - 1)
      for step in range(start, end + 1):
        reporter.scalars(step, {'loss': 10 * start + step})
  seen = plugin_event_accumulator.EventAccumulator(
    str(tmp_path / 'tensorboard')
  )
  seen.Reload()
  assert [
    (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
    for event in seen.Tensors('loss')
  ] == [(1, 11), (2, 12), (3, 13), (4, 44), (5, 45)]


def test_a_rollback_is_forgotten_by_tensorboard_too(tmp_path):
  pytest.importorskip('tensorflow')
  from tensorboard.backend.event_processing import plugin_event_accumulator

  with metric_writer.Reporter(tmp_path, quiet=True) as reporter:
    for step in (1, 2, 3):
      reporter.scalars(step, {'loss': 1.0})
    reporter.resume(1)
    reporter.scalars(2, {'loss': 2.0})
  seen = plugin_event_accumulator.EventAccumulator(
    str(tmp_path / 'tensorboard')
  )
  seen.Reload()
  assert [event.step for event in seen.Tensors('loss')] == [1, 2]


def test_without_tensorflow_one_line_says_so_and_the_rest_goes_on(
  tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  stream = io.StringIO()
  with metric_writer.Reporter(tmp_path, stream=stream) as reporter:
    for step in range(3):
      reporter.scalars(step, {'loss': 1.0})
      reporter.grid(step, 'samples', np.zeros((2, 2, 3), np.uint8))
    reporter.prepare()
  (line,) = stream.getvalue().splitlines()
  assert line.startswith('TensorBoard events are off: import of tensorflow')
  assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize('seconds', [0.0, 0.2])
def test_an_error_of_tensorboard_is_not_swallowed(
  tmp_path, monkeypatch, seconds
):
  """Neither one that is noticed at once nor one in the last write."""

  def fail(self):
    time.sleep(seconds)
    raise OSError('no space for events')

  monkeypatch.setattr(tensorboard.TensorBoard, '_open', fail)
  reporter = metric_writer.Reporter(tmp_path, quiet=True)
  reporter.prepare()
  time.sleep(0.1)
  with pytest.raises(OSError, match='no space for events'):
    reporter.close()


def test_importing_it_wakes_neither_tensorflow_nor_jax():
  code = (
    'import sys, cdm.reporting.metric_writer\n'
    'heavy = {"tensorflow", "jax", "clu", "PIL", "tqdm", "numpy"}\n'
    'print(sorted(heavy & set(sys.modules)))\n'
  )
  out = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert out.stdout.strip() == '[]'


def test_a_reporter_with_nothing_to_write_imports_no_tensorflow(tmp_path):
  code = (
    'import sys, cdm.reporting.metric_writer\n'
    'with cdm.reporting.metric_writer.Reporter(sys.argv[1]) as reporter:\n'
    '  reporter.resume(0)\n'
    'print("tensorflow" in sys.modules)\n'
  )
  args = [sys.executable, '-c', code, str(tmp_path)]
  out = subprocess.run(args, capture_output=True, text=True, check=True)
  assert out.stdout.strip() == 'False'


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


def test_the_timer_tells_training_from_waiting_and_from_the_rest():
  clock = Clock()
  timer = step_timer.Timer(clock)
  assert timer.rates(3, batch_size=8) == {}
  timer.restart(10)
  with timer.waiting():
    clock.now += 2
  clock.now += 6
  with timer.away():
    clock.now += 100
  assert timer.rates(14, batch_size=8) == {
    'images_per_second': 4.0,
    'step_seconds': 2.0,
    'data_wait_fraction': 0.25,
  }
  timer.restart(14)
  assert timer.rates(14, batch_size=8) == {}
