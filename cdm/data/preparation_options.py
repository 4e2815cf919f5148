"""Defines how a preparation runs, and in what form it stores the images.

`prepare.prepare` takes these options by name.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from absl import logging


class Advancing(Protocol):
  """Counts images that are done, and shows it; a context manager."""

  def __enter__(self) -> 'Advancing': ...

  def __exit__(self, *_: object) -> None: ...

  def advance(self, count: int) -> None:
    """Counts further images."""
    ...


class _Silent(contextlib.nullcontext):
  """Shows nothing."""

  def __enter__(self) -> '_Silent':
    return self

  def advance(self, count: int) -> None:
    del count


class Options(NamedTuple):
  """The options of a preparation.

  Attributes:
    worker_count: processes that decode; 0 decodes in threads of this one.
    max_skip_fraction: the run stops when a larger fraction is unreadable.
    records_per_shard: None for shards of about 256 MB.
    payload: 'raw', 'png' or 'jpeg', see `payload`.
    quality: of JPEG files that are written.
    verify: whether every record is read and compared with its checksum, those
      that an earlier run wrote before this one continues, and the others when
      they are written.
    progress: `(total=, initial=)` returns what shows how many images are done.
    say: is told before the start how much room and time the images need.
  """

  worker_count: int = 0
  max_skip_fraction: float = 0.01
  records_per_shard: int | None = None
  payload: str = 'raw'
  quality: int = 95
  verify: bool = False
  progress: Callable[..., Advancing] = lambda total, initial: _Silent()
  say: Callable[[str], object] = logging.info
