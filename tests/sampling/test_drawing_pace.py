"""How long drawing takes is said beforehand, from what it took before."""

import os

import pytest
from support import canvas_stages

from cdm.sampling import drawing_pace
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlarged_size import Asked, choose
from cdm.sampling.enlargement import Enlargement

CORES = os.cpu_count() or 1
ON = f'the CPU ({CORES} core{"s" * (CORES > 1)}).'


@pytest.fixture
def enlargement(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  # Where that is full, other folders are looked at, which tests share.
  monkeypatch.setattr(drawing_pace, '_CACHE', f'drawing-{tmp_path.name}')
  stage = canvas_stages.stage(trace=lambda: ({}, 3_500_000_000))
  upscaler = CanvasUpscaler.of(stage, batch_size=4)
  size = choose((64, 64), upscaler.factor, Asked())
  return Enlargement.of(upscaler, size)


def said(enlargement, capsys, record=None):
  drawing_pace.announce(record, [enlargement])
  return capsys.readouterr().out


def test_before_the_first_run_flops_are_counted(
  enlargement, monkeypatch, capsys
):
  monkeypatch.setattr(drawing_pace, '_convolution_rate', lambda: 1e10)
  seconds = enlargement.flops / (0.6 * 1e10)
  assert seconds > 2 and enlargement.flops >= enlargement.num_windows * 3.5e9
  assert seconds < 60
  expected = f'Drawing takes about {seconds:.2g} s, on {ON}\n'
  assert said(enlargement, capsys) == expected
  # Nobody plans with a second.
  monkeypatch.setattr(drawing_pace, '_convolution_rate', lambda: 1e16)
  assert said(enlargement, capsys) == ''
  assert drawing_pace._read() == {}


def test_the_pace_of_a_run_is_remembered(enlargement, monkeypatch, capsys):
  """Of 2 windows in 8 s; those before, which were compiled, do not count."""
  now = [100.0]
  monkeypatch.setattr(drawing_pace.time, 'monotonic', lambda: now[0])
  monkeypatch.setattr(drawing_pace, '_convolution_rate', lambda: 1e16)
  watch = drawing_pace.Watch(None, enlargement.upscaler)
  passed_on = []
  on_windows = watch.callback(enlargement, passed_on.append)
  for at, count in ((160.0, 3), (164.0, 1), (168.0, 1)):
    now[0] = at
    on_windows(count)
  watch.remember()
  assert passed_on == [3, 1, 1]
  windows = enlargement.num_windows
  assert windows == 72  # 288 s, in two digits 290
  assert said(enlargement, capsys) == (f'Drawing takes about 4:50, on {ON}\n')

  class Record:
    def manifest(self):
      return {'checkpoint': 3}

  # That of another stage says nothing.
  assert said(enlargement, capsys, Record()) == ''


@pytest.mark.parametrize('text', ['', '[]', '{"a": -1.0}', '{"a": "1"}', '{'])
def test_a_damaged_memory_is_none(enlargement, tmp_path, text):
  path = drawing_pace.user_cache.folder(drawing_pace._CACHE) / 'paces.json'
  path.write_text(text, encoding='utf-8')
  assert drawing_pace._read() == {}
  watch = drawing_pace.Watch(None, enlargement.upscaler)
  on_windows = watch.callback(enlargement, lambda count: None)
  on_windows(1)
  watch.remember()  # nothing was timed
  assert path.read_text(encoding='utf-8') == text
  on_windows(1)
  watch.remember()
  assert len(drawing_pace._read()) == 1


def test_the_rate_of_a_convolution_is_one_of_a_computer():
  assert 1e7 < drawing_pace._convolution_rate() < 1e16
