"""Progress of work that is counted: steps, images drawn or super-resolved.

A bar on a terminal; elsewhere, for logs, a line every ten seconds.
"""

import collections
import os
import sys
import time

from cdm.distributed import collectives


class Progress:
  """Shows how far some work is, how fast it goes and how long it will take.

  Use as a context manager, or call `close`. Of several processes one tells.
  """

  FIRST_SECONDS = 2.0
  EVERY_SECONDS = 10.0
  REMEMBERED = 6  # lines; so the rate is over the last minute

  def __init__(
    self,
    label='',
    *,
    total,
    initial=0,
    unit='image',
    images=None,
    stream=None,
    clock=time.monotonic,
  ):
    """Begins to show it.

    Args:
      label: what is being done, e.g. 'sampling'.
      total: number of units.
      initial: how many are done already; they do not count as speed.
      unit: what is counted.
      images: per unit; adds how many there are a second.
      stream: where it goes; stderr by default.
      clock: for tests.
    """
    self._label, self._total, self._unit = label, total, unit
    self._images, self._clock = images, clock
    self._stream = sys.stderr if stream is None else stream
    self._done = self._shown = initial
    self._loss = self._bar = None
    self._quiet = not collectives.is_first() or initial >= total
    self._marks = collections.deque([(clock(), initial)], self.REMEMBERED)
    self._due = clock() + self.FIRST_SECONDS
    if not self._quiet and is_terminal(self._stream):
      from tqdm import tqdm  # only a terminal needs it

      self._bar = tqdm(
        desc=label or None,
        total=total,
        initial=initial,
        unit=unit,
        file=self._stream,
        dynamic_ncols=True,
        smoothing=0.1,
      )

  def advance(self, count):
    """Says that `count` more units are done."""
    self.move_to(self._done + count)

  def move_to(self, done, loss=None):
    """Says how many units are done; the last loss given stays on show."""
    self._done = done
    self._loss = self._loss if loss is None else loss
    if self._quiet:
      return
    if self._bar is not None:
      self._move_bar(loss)
    elif self._clock() >= self._due:
      self._show()

  def _move_bar(self, loss):
    if loss is not None:
      rate = self._bar.format_dict['rate'] or 0.0
      images = f'{rate * (self._images or 1):.3g}'
      self._bar.set_postfix({'img/s': images, 'loss': f'{loss:.4g}'}, False)
    self._bar.update(self._done - self._bar.n)

  def _show(self):
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

  def say(self, text):
    """Prints a line without breaking the bar."""
    if self._bar is not None:
      self._bar.clear()
    if not self._quiet:
      print(text, file=self._stream, flush=True)

  def close(self):
    """Ends it, leaving the last state on show."""
    if self._bar is not None:
      self._bar.close()
    elif not self._quiet and self._done > self._shown:
      self._show()
    self._quiet = True

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def is_terminal(stream):
  """Whether a bar would be seen there."""
  if not getattr(stream, 'isatty', lambda: False)():
    return False
  try:
    # Some pseudo-terminals have no size, and a bar would not be seen there.
    return os.get_terminal_size(stream.fileno()).columns > 0
  except OSError:
    return True


def duration(seconds):
  """-> '12.3 s', '2:05' or '3:02:05'."""
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return (
    f'{hours}:{minutes:02d}:{seconds:02d}'
    if hours
    else (f'{minutes}:{seconds:02d}')
  )
