"""Progress of work that is counted in items: drawing, super-resolving."""

import sys
import time

from cdm import processes


class Progress:
  """A bar on a terminal, a line every few seconds elsewhere.

  Use as a context manager; `advance` says how many items are newly done.
  """

  EVERY_SECONDS = 10.0

  def __init__(self, label, *, total, initial=0, unit='image', stream=None):
    """Args:

    label: what is being done, e.g. 'sampling'.
    total: number of items; initial of them are done already.
    unit: what an item is.
    stream: where it goes; stderr by default.
    """
    self._label, self._total, self._unit = label, total, unit
    self._done = self._initial = initial
    self._stream = sys.stderr if stream is None else stream
    self._bar = None
    # Of several processes one tells.
    self._quiet = not processes.is_first()

  def __enter__(self):
    self._start = self._shown = time.monotonic()
    if self._quiet or self._total <= self._initial:
      return self
    if self._stream.isatty():
      from tqdm import tqdm

      self._bar = tqdm(
        desc=self._label,
        total=self._total,
        initial=self._initial,
        unit=self._unit,
        file=self._stream,
        dynamic_ncols=True,
      )
    else:
      self._say(f'{self._label}: compiling ...')
    return self

  def advance(self, count):
    """Says that `count` more items are done."""
    self._done += count
    if self._quiet:
      return
    if self._bar is not None:
      self._bar.update(count)
      return
    now = time.monotonic()
    if self._done < self._total and now - self._shown < self.EVERY_SECONDS:
      return
    self._shown = now
    rate = (self._done - self._initial) / max(now - self._start, 1e-9)
    left = (self._total - self._done) / max(rate, 1e-9)
    self._say(
      f'{self._label}: {self._done}/{self._total}'
      f'  {100 * self._done // self._total}%  {rate:.3g} {self._unit}/s'
      f'  ETA {left:.0f} s'
    )

  def _say(self, text):
    print(text, file=self._stream, flush=True)

  def __exit__(self, *_):
    if self._bar is not None:
      self._bar.close()
