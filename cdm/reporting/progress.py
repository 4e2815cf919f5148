"""Shows progress: a bar on a terminal, a line every ten seconds in a log.

It counts units of work: steps, or images that are sampled or super-resolved.
"""

import collections
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TextIO

from cdm.distributed import collectives

if TYPE_CHECKING:
  from tqdm import tqdm as Tqdm


class Progress:
  """Shows how much of the work is done, the rate, and the remaining time.

  Use as a context manager, or call `close`. In a run of several processes only
  process 0 prints.
  """

  FIRST_SECONDS = 2.0  # from the start to the first line
  EVERY_SECONDS = 10.0  # between two lines
  REMEMBERED = 6  # lines, a minute's, that the rate is averaged over

  def __init__(
    self,
    label: str = '',
    *,
    total: int,
    initial: int = 0,
    unit: str = 'image',
    images: int | None = None,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts the clock, and opens the bar if the stream is a terminal.

    Args:
      label: name of the work, e.g. 'sampling'.
      total: number of units of the whole work.
      initial: number of units done before; they do not count for the rate.
      unit: name of the unit.
      images: number of images per unit. If given, images per second are shown
        too.
      stream: where to print; stderr by default.
      clock: function that returns the time in seconds; tests replace it.
    """
    self._label, self._total, self._unit = label, total, unit
    self._images, self._clock = images, clock
    self._stream = sys.stderr if stream is None else stream
    self._done = self._shown = initial
    self._loss: float | None = None
    self._bar: Tqdm | None = None
    self._quiet = not collectives.is_first() or initial >= total
    self._marks = collections.deque([(clock(), initial)], self.REMEMBERED)
    self._due = clock() + self.FIRST_SECONDS
    self._compiling = False
    if not self._quiet and is_terminal(self._stream):
      from tqdm import tqdm  # Only a terminal needs it.

      self._bar = tqdm(
        desc=label or None,
        total=total,
        initial=initial,
        unit=unit,
        file=self._stream,
        dynamic_ncols=True,
        smoothing=0.1,
      )

  def advance(self, count: int) -> None:
    """Records that `count` more units are done."""
    self.move_to(self._done + count)

  def move_to(self, done: int, loss: float | None = None) -> None:
    """Records that `done` units are done in all.

    Args:
      done: number of units, those of `initial` included.
      loss: loss to show; None keeps showing the last one.
    """
    self._done = done
    self._loss = self._loss if loss is None else loss
    if self._quiet:
      return
    if self._compiling and done < self._total:
      self._restart_clock()
    if self._bar is not None:
      self._move_bar(self._bar, loss)
    elif self._clock() >= self._due:
      self._print_line()

  def _move_bar(self, bar: 'Tqdm', loss: float | None) -> None:
    if loss is not None:
      rate = bar.format_dict['rate'] or 0.0
      images = f'{rate * (self._images or 1):.3g}'
      bar.set_postfix({'img/s': images, 'loss': f'{loss:.4g}'}, False)
    bar.update(self._done - bar.n)

  def _print_line(self) -> None:
    now = self._clock()
    self._due = now + self.EVERY_SECONDS
    start = f'{self._label}: ' if self._label else f'{self._unit} '
    parts = [f'{start}{self._done}/{self._total}']
    parts.append(f'{100 * self._done // max(self._total, 1)}%')
    then, since = self._marks[0]
    self._marks.append((now, self._done))
    if self._done > since and now > then:
      rate = (self._done - since) / (now - then)
      parts.append(f'{rate:.3g} {self._unit}/s')
      if self._images:
        parts.append(f'{rate * self._images:.3g} img/s')
      parts.append(f'ETA {duration((self._total - self._done) / rate)}')
    if self._loss is not None:
      parts.append(f'loss {self._loss:.4g}')
    self._shown = self._done
    self.say('  '.join(parts))

  def compiling(self) -> None:
    """Says that a program is being compiled before the first unit.

    The time until the first units are done does not count for the rate, because
    it says nothing about the time that the others need.
    """
    start = f'{self._label}: ' if self._label else ''
    self.say(f'{start}compiling ...')
    self._compiling = True

  def _restart_clock(self) -> None:
    self._compiling = False
    now = self._clock()
    self._marks.clear()
    self._marks.append((now, self._done))
    self._due = min(self._due, now + self.FIRST_SECONDS)
    if self._bar is not None:
      # tqdm divides by the time since its start; it has no method for this.
      self._bar.n = self._bar.initial = self._bar.last_print_n = self._done
      self._bar.start_t = self._bar.last_print_t = self._bar._time()
      self._bar.refresh()

  def say(self, text: str) -> None:
    """Prints a line above the bar, without breaking it."""
    if self._bar is not None:
      self._bar.clear()
    if not self._quiet:
      print(text, file=self._stream, flush=True)

  def close(self) -> None:
    """Ends progress; its last state stays visible."""
    if self._bar is not None:
      self._bar.close()
    elif not self._quiet and self._done > self._shown:
      self._print_line()
    self._quiet = True

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def is_terminal(stream: TextIO) -> bool:
  """Returns whether a stream is a terminal on which a bar is visible."""
  if not getattr(stream, 'isatty', lambda: False)():
    return False
  try:
    # Some pseudo-terminals have no size, and a bar would be invisible there.
    return os.get_terminal_size(stream.fileno()).columns > 0
  except OSError:
    return True


def duration(seconds: float) -> str:
  """Returns a duration for people: '12.3 s', '2:05' or '3:02:05'."""
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return (
    f'{hours}:{minutes:02d}:{seconds:02d}'
    if hours
    else (f'{minutes}:{seconds:02d}')
  )
