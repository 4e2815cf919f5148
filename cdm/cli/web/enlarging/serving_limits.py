"""Defines what a picture, a task and all files together may cost."""

from typing import NamedTuple


class ServingLimits(NamedTuple):
  """What the page lets its users ask for.

  Attributes:
    upload_bytes: size of a picture's file.
    upload_seconds: how long it may take to arrive.
    pixels: of a picture that is given.
    result_pixels: of a result.
    side: pixels of the longer side of both.
    shown_pixels: of a result that a browser shows as a whole.
    folder_bytes: all files that are kept at once.
    kept_seconds: how long a picture is kept after it was last worked on.
    entries: pictures that are kept at once.
    waiting: tasks that wait, beside the one that is worked on.
    task_seconds: how long a task may take.
    memory_bytes: what the worker may take for a task, beside the model.
    draws: pictures that one task draws.
  """

  upload_bytes: int = 64 * 2**20
  upload_seconds: float = 120.0
  pixels: int = 40_000_000
  result_pixels: int = 400_000_000
  side: int = 20_000
  # A canvas of some phones holds 4096 x 4096.
  shown_pixels: int = 2**24
  folder_bytes: int = 2 * 10**9
  kept_seconds: float = 3600.0
  entries: int = 200
  waiting: int = 4
  task_seconds: float = 1800.0
  memory_bytes: int = 8 * 2**30
  draws: int = 16
