"""TensorBoard events hold what the record holds, and need no TensorFlow."""

import io
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from support import small_disks

from cdm.reporting import metric_writer, record_parts, tensorboard


def test_tensorboard_shows_the_same_numbers_and_pictures(tmp_path):
  """Read back with TensorBoard's own reader."""
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


@pytest.mark.parametrize('most_bytes', [2**22, 300])
def test_files_that_are_closed_or_full_go_on_as_one_record(
  tmp_path, monkeypatch, most_bytes
):
  """A mounted bucket shows closed files only, and writes them whole."""
  from tensorboard.backend.event_processing import plugin_event_accumulator

  monkeypatch.setattr(tensorboard, 'MOST_BYTES', most_bytes)
  monkeypatch.setattr(record_parts, 'CLOSE_S', 0.0)
  writer = tensorboard.TensorBoard(tmp_path)
  for step in range(1, 21):
    writer.scalars(step, {'loss': float(step)})
    assert writer._file is None
  writer.close()
  files = sorted(tmp_path.iterdir())
  assert len(files) == 1 if most_bytes > 300 else len(files) > 2
  seen = plugin_event_accumulator.EventAccumulator(str(tmp_path))
  seen.Reload()
  assert [event.step for event in seen.Tensors('loss')] == list(range(1, 21))


def test_a_rollback_is_forgotten_by_tensorboard_too(tmp_path):
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


def test_a_start_in_the_same_second_overwrites_nothing(tmp_path):
  """Nor is a file of a host whose clock is ahead read after the new one."""
  ahead = int(time.time()) + 10_000
  (tmp_path / 'tensorboard').mkdir()
  other = tmp_path / 'tensorboard' / f'events.out.tfevents.{ahead}.host.1'
  other.write_bytes(b'')
  for _ in range(2):
    with metric_writer.Reporter(tmp_path, quiet=True) as reporter:
      reporter.scalars(1, {'loss': 1.0})
  first, *new = sorted(p.name for p in other.parent.iterdir())
  assert first == other.name
  assert [int(name.split('.')[3]) for name in new] == [ahead + 1, ahead + 2]


def test_events_that_cannot_be_written_are_one_clear_error(tmp_path):
  reporter = metric_writer.Reporter(tmp_path, quiet=True)
  reporter.scalars(1, {'loss': 1.0})
  (path,) = (tmp_path / 'tensorboard').iterdir()
  # The record's own line is shorter, and has room.
  full = small_disks.files_of_at_most(path.stat().st_size)
  with full, pytest.raises(OSError, match='File too large. Free space'):
    reporter.scalars(2, {'loss': 1.0})


def test_importing_it_wakes_neither_tensorflow_nor_jax():
  code = (
    'import sys, cdm.reporting.metric_writer\n'
    'heavy = {"tensorflow", "tensorboard", "jax", "PIL", "tqdm", "numpy"}\n'
    'print(sorted(heavy & set(sys.modules)))\n'
  )
  out = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  )
  assert out.stdout.strip() == '[]'


def test_writing_events_imports_no_tensorflow(tmp_path):
  code = (
    'import sys, cdm.reporting.metric_writer\n'
    'with cdm.reporting.metric_writer.Reporter(sys.argv[1]) as reporter:\n'
    '  reporter.resume(0)\n'
    '  assert "tensorboard" not in sys.modules\n'
    '  reporter.scalars(1, {"loss": 1.0})\n'
    'print("tensorboard" in sys.modules, "tensorflow" in sys.modules)\n'
  )
  args = [sys.executable, '-c', code, str(tmp_path)]
  out = subprocess.run(
    args, capture_output=True, text=True, check=True, encoding='utf-8'
  )
  assert out.stdout.strip() == 'True False'
