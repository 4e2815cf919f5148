"""Says before images are prepared how much room and time they need.

Some of them are prepared for it, because how well images compress differs
between photographs and drawings. A disk that cannot hold the result is refused
before hours of work.
"""

import os
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from cdm.data import record_format, shard_writer
from cdm.data.files import atomic_files
from cdm.data.shown_bytes import shown

WORTH_MEASURING = 1000  # images; fewer are prepared as soon
_MEASURED = 32  # images, spread over all where that is quick
# A shard is filled up to blocks of 64 kB. So many bytes make that unimportant.
_ENOUGH_BYTES = 2**20
_RESERVE = 2**26  # bytes of the disk that nobody should use up


def check(
  folder: pathlib.Path,
  pack: Callable[[int], tuple[bytes, Any, Any]],
  indices: Sequence[int],
  *,
  in_order: bool,
  say: Callable[[str], object],
) -> None:
  """Measures what some images need, and compares it with the disk.

  Args:
    folder: where the shards will be.
    pack: returns the record of an image first, see `prepare`.
    indices: the images that are still to be prepared.
    in_order: whether the first are measured, because the source can only be
      read in its order.
    say: is told the result, in one line.

  Raises:
    ValueError: the free space of the disk is too small.
  """
  if len(indices) < WORTH_MEASURING:
    return
  step = 1 if in_order else len(indices) // _MEASURED
  began = time.monotonic()
  records = [pack(indices[i * step])[0] for i in range(_MEASURED)]
  seconds = (time.monotonic() - began) / _MEASURED * len(indices)
  times = -(-_ENOUGH_BYTES // sum(map(len, records)))
  stored = _stored_bytes(folder, records * times) / (_MEASURED * times)
  needed = stored * len(indices)
  free = shutil.disk_usage(folder).free
  where = folder.resolve()
  if needed + _RESERVE > free:
    raise ValueError(
      f'{len(indices):,} images need about {shown(needed)} in {where}, where '
      f'{shown(free)} are free. Free space, give another --out, or store '
      'smaller files with --payload=jpeg.'
    )
  cores = len(os.sched_getaffinity(0)) if _has_affinity() else os.cpu_count()
  say(
    f'{len(indices):,} images need about {shown(needed)} in {where} '
    f'({shown(free)} are free), no temporary space, and about '
    f'{_duration(seconds / (cores or 1))} if storage is quick.'
  )


def _has_affinity():
  return hasattr(os, 'sched_getaffinity')  # Linux has it.


def _stored_bytes(folder, records):
  """Returns the size of a shard of these records, which is removed again."""
  new_writer = shard_writer.writer_class()
  path = folder / atomic_files.partial_name('measured')
  try:
    with shard_writer.failing_clearly(path):
      writer = new_writer(str(path), record_format.WRITER_OPTIONS)
      for record in records:
        writer.write(record)
      writer.close()
      return path.stat().st_size
  finally:
    path.unlink(missing_ok=True)


def _duration(seconds):
  if seconds < 120:
    return f'{max(1, round(seconds))} s'
  if seconds < 7200:
    return f'{seconds / 60:.0f} minutes'
  return f'{seconds / 3600:.1f} hours'
