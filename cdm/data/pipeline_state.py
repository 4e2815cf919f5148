"""Defines the saved position of a pipeline, which goes into every checkpoint.

The position is a dict of JSON values, because checkpoints store it as JSON.
"""

from typing import Any, TypedDict

from cdm.data.files import json_file


class Order(TypedDict):
  """What the order of the records of a stream depends on.

  Attributes:
    records: number of records of the source.
    seed: seed of order, flips and crops.
    shuffle: True if every epoch has its own order.
  """

  records: int
  seed: int
  shuffle: bool


class SkipCounts(TypedDict):
  """The records that one process has read and left out so far.

  Attributes:
    tried: records read, with those that were left out.
    unreadable: records that could not be read.
    too_small: records whose short side is below
      `pipeline.PipelineOptions.least_side`.
  """

  tried: int
  unreadable: int
  too_small: int


class PipelineState(TypedDict):
  """The position of a pipeline in its stream of records.

  Attributes:
    position: number of records before the next global batch.
    order: tells whether a position belongs to this stream.
    skipped: counts of this process; they affect nothing but the warnings and
      max_skip_fraction.
  """

  position: int
  order: Order
  skipped: SkipCounts


def check(state: Any) -> None:
  """Raises DamagedFile unless a value that was saved is a `PipelineState`."""
  json_file.check(
    state,
    PipelineState,
    name='The data position saved in the work directory',
    remedy='Restore a copy of it; without rollbacks.json the position in the '
    'checkpoint counts.',
  )
