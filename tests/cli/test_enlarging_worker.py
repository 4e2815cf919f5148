"""What the worker of `cdm serve` reads, refuses, draws and writes."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support import canvas_stages, served_pictures

from cdm.cli.enlarging_worker import shown_pictures
from cdm.cli.enlarging_worker.photograph_tasks import ORIGINAL, PhotographTasks
from cdm.cli.enlarging_worker.task_report import Cancelled
from cdm.cli.web.enlarging.serving_limits import ServingLimits
from cdm.data.photographs import output_kinds, picture_writer
from cdm.sampling import upscaler as sampling_upscaler

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMITS = ServingLimits(pixels=2000, result_pixels=7000, shown_pixels=5000)
PART = dict(
  task='part', part=dict(top=2, left=3, height=8, width=9), scale=2.0,
  seeds=2, seed=5, map=True, label=None,
)  # fmt: skip
FILE = dict(
  task='file', scale=2.0, seed=0, detail=None, strip=False, format='png',
  label=None, bytes_left=10**9,
)  # fmt: skip


class Report:
  """Notes what a task says, and cancels it after some windows."""

  def __init__(self, most=10**9):
    self.layers, self.done, self.total, self._most = [], 0, 0, most

  def advance(self, count, total):
    self.done, self.total = self.done + count, total
    self.check()

  def found(self, found):
    self.layers += found.get('layers', [])

  def check(self):
    if self.done >= self._most:
      raise Cancelled


@pytest.fixture(scope='module')
def tasks():
  """-> those of a stage that magnifies twice and draws noise, with no mean."""
  stage = canvas_stages.stage(size=16, margin=0)
  upscaler = sampling_upscaler.stage_upscaler(stage, None, batch_size=4)
  made = PhotographTasks(upscaler, 'small', [], LIMITS)
  made.warm_up(16)
  return made


def run(tasks, folder, request, report=None):
  given = {**request, 'folder': str(folder)}
  return tasks.run(given, report or Report())


def test_a_picture_is_opened_where_it_has_most_texture(tasks, tmp_path):
  rng = np.random.default_rng(0)
  samples = np.full((40, 50, 4), 300, np.uint16)
  samples[20:36, 26:42, :3] = rng.integers(0, 65536, (16, 16, 3))
  samples[..., 3] = 65535
  samples[:5, :5, 3] = 0
  kind = output_kinds.by_name('PNG')
  layout = output_kinds.Layout(50, 40, 4, 16)
  path = tmp_path / ORIGINAL
  with picture_writer.open_writer(path, layout, kind=kind) as file:
    file.write(samples)
  found = run(tasks, tmp_path, {'task': 'open'})['picture']
  assert (found['bits'], found['alpha'], found['kind']) == (16, True, 'PNG')
  part = found['part']
  assert abs(part['top'] - 20) <= 2 and abs(part['left'] - 26) <= 2
  with Image.open(tmp_path / found['overview']) as image:
    assert image.size == (50, 40) and image.mode == 'RGBA'
  report = Report()
  run(tasks, tmp_path, PART, report)
  kinds = [(one['kind'], one['seed']) for one in report.layers]
  assert kinds == [
    ('bicubic', None), ('sample', 5), ('sample', 6), ('map', None)
  ]  # fmt: skip
  for one in report.layers:
    with Image.open(tmp_path / one['file']) as image:
      assert image.size == (18, 16)
  assert 0 < report.done == report.total
  # Nothing is drawn twice.
  again = Report()
  run(tasks, tmp_path, PART, again)
  assert again.layers == report.layers and again.done == 0


def test_what_is_too_large_is_refused_before_it_is_decoded(tasks, tmp_path):
  """Neither its pixels, nor those of what it would become."""
  served_pictures.photo(tmp_path / ORIGINAL, 60, 40, format='PNG')
  with pytest.raises(ValueError, match='60x40 pixels; this page takes 0.002'):
    run(tasks, tmp_path, {'task': 'open'})
  served_pictures.photo(tmp_path / ORIGINAL, 50, 40, format='PNG')
  run(tasks, tmp_path, {'task': 'open'})
  with pytest.raises(ValueError, match='0.007 at most'):
    run(tasks, tmp_path, {**FILE, 'scale': 2.5})
  with pytest.raises(ValueError, match='too large to be shown'):
    whole = dict(top=0, left=0, height=40, width=50)
    run(tasks, tmp_path, {**PART, 'part': whole})
  with pytest.raises(ValueError, match='no room for a file'):
    run(tasks, tmp_path, {**FILE, 'scale': 1.2, 'bytes_left': 1000})
  (tmp_path / ORIGINAL).write_bytes(b'GIF89a, and no more')
  with pytest.raises(ValueError, match='^The picture: ') as error:
    run(tasks, tmp_path, {'task': 'open'})
  assert str(tmp_path) not in str(error.value)


def test_a_file_ends_at_once_when_it_is_cancelled(tasks, tmp_path):
  served_pictures.photo(tmp_path / ORIGINAL, 50, 25, format='PNG')
  with pytest.raises(Cancelled):
    run(tasks, tmp_path, FILE, Report(most=1))
  # The next one is whole, and shown shrunk, as browsers hold no larger one.
  tasks = PhotographTasks(
    tasks._upscaler, 'small', [], LIMITS._replace(pixels=9000)
  )
  found = run(tasks, tmp_path, {**FILE, 'format': 'webp', 'scale': 2.2})
  assert found['file']['kind'] == 'WebP' and found['file']['width'] == 110
  with Image.open(tmp_path / found['file']['path']) as image:
    assert image.format == 'WEBP' and image.size == (110, 55)
  shown = found['whole']['shown']
  assert shown[0] * shown[1] <= 5000 and shown[0] < 55
  assert len(found['media']) == 2


def test_overviews_keep_their_shape():
  assert shown_pictures.fitting(30, 4000, 2048) == (15, 2048)
  assert shown_pictures.fitting(1, 20_000, 2048) == (1, 2048)
  assert shown_pictures.fitting(7, 9, 2048) == (7, 9)


def test_a_task_that_needs_more_memory_than_it_may_fails():
  code = (
    'from cdm.cli.enlarging_worker import worker_program\n'
    'worker_program.limit_memory(2**26)\n'
    'bytearray(2**24)\n'
    'try: bytearray(2**28)\n'
    'except MemoryError as error: print(worker_program._sentence(error))\n'
  )
  found = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  )
  assert found.stdout.startswith('There is not enough memory for this.')
