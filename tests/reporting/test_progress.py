"""Progress: a bar on a terminal, a line every ten seconds elsewhere."""

import io
import os
import pty
import termios
import time

import pytest
from support.terminals import Clock, Terminal

from cdm.reporting import progress


def test_lines_give_rate_eta_and_loss_every_ten_seconds():
  """Two steps a second of 32 images, step 30 to 200, by a clock of our own."""
  stream, clock = io.StringIO(), Clock()
  shown = progress.Progress(
    total=200, initial=30, unit='step', images=32, stream=stream, clock=clock
  )
  for step in range(31, 92):
    clock.now += 0.5
    shown.move_to(step, 0.125 if step % 10 == 0 else None)
  found = stream.getvalue().splitlines()
  assert [line.split()[1] for line in found] == ['34/200', '54/200', '74/200']
  assert found[-1].split('  ') == [
    'step 74/200',
    '37%',
    '2 step/s',
    '64 img/s',
    'ETA 1:03',
    'loss 0.125',
  ]
  shown.close()  # where it ended is shown too
  assert stream.getvalue().splitlines()[-1].startswith('step 91/200')


def test_it_is_told_at_the_end_and_seldom_before():
  stream = io.StringIO()
  with progress.Progress('drawing', total=100, stream=stream) as shown:
    for _ in range(10):
      shown.advance(10)
  (line,) = stream.getvalue().splitlines()
  assert line.startswith('drawing: 100/100  100%')
  assert line.endswith('ETA 0.0 s')


def test_what_was_there_counts_but_not_as_speed():
  stream, clock = io.StringIO(), Clock()
  with progress.Progress(
    'drawing', total=100, initial=50, stream=stream, clock=clock
  ) as shown:
    clock.now += 20.0
    shown.advance(10)
  (line,) = stream.getvalue().splitlines()
  assert line == 'drawing: 60/100  60%  0.5 image/s  ETA 1:20'


def test_the_time_of_compiling_does_not_count_as_speed():
  """A minute of compiling, then a tile a second."""
  stream, clock = io.StringIO(), Clock()
  shown = progress.Progress(
    'upscaling', total=20, unit='tile', stream=stream, clock=clock
  )
  shown.compiling()
  clock.now += 60.0
  for _ in range(12):
    shown.advance(1)
    clock.now += 1.0
  assert stream.getvalue().splitlines() == [
    'upscaling: compiling ...',
    'upscaling: 1/20  5%',
    'upscaling: 11/20  55%  1 tile/s  ETA 9.0 s',
  ]


def test_a_bar_leaves_out_the_time_of_compiling():
  stream = Terminal()
  with progress.Progress('upscaling', total=3, stream=stream) as shown:
    shown.compiling()
    time.sleep(0.3)
    shown.advance(1)
    shown.advance(1)
    rate = shown._bar.format_dict['rate']
    elapsed = shown._bar.format_dict['elapsed']
  text = stream.getvalue()
  assert 'upscaling: compiling ...\n' in text and '1/3' in text
  assert elapsed < 0.3 and (rate is None or rate > 10)


@pytest.mark.parametrize('kind', [io.StringIO, Terminal])
def test_nothing_to_do_says_nothing(kind):
  stream = kind()
  with progress.Progress('drawing', total=3, initial=3, stream=stream) as shown:
    shown.say('drawing: compiling ...')
  assert stream.getvalue() == ''


def test_a_terminal_gets_a_bar_of_what_is_drawn():
  stream = Terminal()
  with progress.Progress('drawing', total=4, stream=stream) as shown:
    shown.say('a line between')
    shown.advance(4)
  text = stream.getvalue()
  assert 'drawing: 100%' in text and '4/4' in text and 'image/s' in text
  assert 'a line between\n' in text


def test_durations_are_read_at_a_glance():
  said = [progress.duration(s) for s in (0.04, 59.4, 125, 10_925)]
  assert said == ['0.0 s', '59.4 s', '2:05', '3:02:05']


def test_a_terminal_without_a_size_gets_lines():
  """As pseudo-terminals of containers have; a bar would be invisible."""
  leader, follower = pty.openpty()
  with open(follower, 'w', encoding='utf-8') as stream:
    assert not progress.is_terminal(stream)
    termios.tcsetwinsize(follower, (40, 100))
    assert progress.is_terminal(stream)
  os.close(leader)
