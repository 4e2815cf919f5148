"""Decodes, crops and resizes a source once, into ArrayRecord shards.

The result is a folder of shards and an index; see `record_format`. A shard gets
its name only when it is complete, and the index lists only complete shards, so
a run that was killed continues after the last complete shard. The index
contains a manifest, under the key 'recipe', with everything that the pixels
depend on. A folder holds images of one manifest only.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Generator, Sequence

import tqdm
from absl import logging
from PIL import features

from cdm.data import (
  array_record,
  image_notes,
  picture_order,
  record_format,
  shard_writer,
  transforms,
  workers,
)
from cdm.data.files import atomic_files
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.printable_name import printable
from cdm.data.source import Source, read

_SHARD_BYTES = 2**28
_RECORDS_PER_CHUNK = 16  # records that a worker hands over at a time


def prepare(
  source: Source,
  *,
  size: int,
  out: str | os.PathLike[str],
  crop: str = 'center',
  filter: str = 'area',
  worker_count: int = 0,
  max_skip_fraction: float = 0.01,
  records_per_shard: int | None = None,
) -> record_format.Index:
  """Writes a prepared copy of a source, or continues an unfinished one.

  An image that is smaller than `size` is enlarged and counted; training leaves
  it out unless it is told to take it. See `source_check` for a source whose
  images are all smaller.

  Args:
    source: the images, see `cdm.data.source`.
    size: S, pixels; the pipeline that reads the copy calls it image_size.
    out: folder to write.
    crop: 'center', 'squash' or 'none'.
    filter: see `transforms.fit`.
    worker_count: processes that decode; 0 decodes in threads of this one.
    max_skip_fraction: the run stops when a larger fraction is unreadable.
    records_per_shard: None for shards of about 256 MB.

  Returns:
    The index of the data set.

  Raises:
    ValueError: `out` was prepared with other settings or cannot be written, or
      too many images cannot be read.
  """
  transforms.check_fit(size=size, crop=crop, filter=filter)
  if crop == 'random':
    raise ValueError("crop='random' cannot be prepared: it differs each epoch.")
  filter = transforms.filter_name(filter)
  if not len(source):
    raise ValueError(f'{type(source).__name__} has no images.')
  if records_per_shard is None:
    records_per_shard = min(65536, max(256, _SHARD_BYTES // (3 * size * size)))
  manifest = _manifest(source, size, crop, filter, records_per_shard)
  with _sole_writer(pathlib.Path(out)) as folder:
    index = _open_index(folder, manifest, source.class_names)
    if not index['complete']:
      pack = functools.partial(
        _pack_one, source, fit=dict(size=size, crop=crop, filter=filter)
      )
      _write_missing(folder, index, pack, worker_count, max_skip_fraction)
  return index


def _manifest(
  source, size, crop, filter, records_per_shard
) -> record_format.Manifest:
  return {
    'format': 1,
    'source': source.fingerprint,
    'records': len(source),
    'size': size,
    'crop': crop,
    'filter': filter,
    'records_per_shard': records_per_shard,
    # Another version of the decoder may differ in the last bit of a JPEG.
    'pillow': importlib.metadata.version('pillow'),
    'libjpeg_turbo': features.version('libjpeg_turbo') or 'none',
    'order': picture_order.describe(
      getattr(source, 'order', picture_order.STORED)
    ),
  }


@contextlib.contextmanager
def _sole_writer(folder):
  """Context manager that makes a folder and locks it against other writers.

  This holds for processes of one machine. `cdm prepare` also holds the folder
  against other machines, with a lock file that this package does not know.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
  except OSError as error:
    raise ValueError(_cannot_write(folder, error)) from error
  try:
    _lock(lock, folder)
    try:
      probe = folder / atomic_files.partial_name(record_format.INDEX)
      probe.touch(exist_ok=False)
      probe.unlink()
      # A run that was killed may have left unfinished files.
      atomic_files.remove_abandoned(folder)
    except OSError as error:
      raise ValueError(_cannot_write(folder, error)) from error
    yield folder
  finally:
    os.close(lock)


def _cannot_write(folder, error):
  return f'Cannot write into {folder}: {error.strerror}.'


def _lock(file, folder):
  try:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise ValueError(f'Another process is writing into {folder}.') from error
  except (ImportError, OSError):  # Windows has no such locks.
    logging.warning(
      '%s cannot be locked; make sure that no other process writes into it.',
      folder,
    )


def _open_index(folder, manifest, class_names) -> record_format.Index:
  """Returns the folder's index, or a new one; refuses another manifest."""
  found = _read_index(folder)
  if found is None:
    # Hidden files, such as the lock of the run, are in nobody's way.
    names = sorted(path.name for path in folder.iterdir())
    others = [name for name in names if not name.startswith('.')]
    if others:
      raise ValueError(
        f'{folder} is neither empty nor a prepared data set: it has '
        f'{others[0]!r}. Choose another folder.'
      )
    text = json.dumps(manifest, sort_keys=True)
    index: record_format.Index = {
      'recipe': manifest,
      'fingerprint': hashlib.sha256(text.encode()).hexdigest()[:16],
      'class_names': list(class_names),
      'shards': [],
      'complete': False,
    }
    record_format.write_index(folder, index)
    return index
  # Earlier versions did not write the order, which the fingerprint covers.
  old = {'order': manifest['order'], **found['recipe']}
  differing = [key for key in manifest if old.get(key) != manifest[key]]
  if differing:
    there = ', '.join(f'{k} {old.get(k)!r}' for k in differing)
    asked = ', '.join(f'{k} {manifest[k]!r}' for k in differing)
    raise ValueError(
      f'{folder} was prepared with another manifest (there: {there}; asked '
      f'now: {asked}). Choose another folder, or delete that one.'
    )
  _drop_damaged(folder, found)
  _add_sizes(folder, found)
  return found


def _read_index(folder) -> record_format.Index | None:
  """Returns the folder's index; None if there is none or it was damaged.

  Without its index nobody knows how the shards were prepared. A damaged index
  is therefore removed with them, unless other files lie there too.
  """
  try:
    return record_format.read_index(folder)
  except DamagedFile as error:
    # Hidden files, such as the lock of the run, are in nobody's way.
    names = {p.name for p in folder.iterdir() if not p.name.startswith('.')}
    names -= {record_format.INDEX}
    if not all(map(record_format.is_shard_name, names)):
      raise
    logging.warning('%s', error)
    for name in (*names, record_format.INDEX):
      (folder / name).unlink()
    return None


def _drop_damaged(folder, index):
  """Leaves only whole shards in the index, so that the others are written."""
  for position, shard in enumerate(index['shards']):
    try:
      if (folder / shard['file']).exists():
        array_record.check_shard(str(folder / shard['file']), shard['records'])
        continue
      logging.warning('%s is missing and is prepared again.', shard['file'])
    except DamagedFile as error:
      logging.warning('%s', error)
    del index['shards'][position:]
    index['complete'] = False
    return


def _add_sizes(folder, index):
  """Adds the sizes of whole shards to an index of an earlier version."""
  unknown = [shard for shard in index['shards'] if 'bytes' not in shard]
  for shard in unknown:
    shard['bytes'] = (folder / shard['file']).stat().st_size
  if unknown:
    with shard_writer.failing_clearly(folder / record_format.INDEX):
      record_format.write_index(folder, index)


def _write_missing(folder, index, pack, worker_count, max_skip_fraction):
  """Writes the shards that the index lacks, and lists each when complete."""
  total = index['recipe']['records']
  per_shard = index['recipe']['records_per_shard']
  count = -(-total // per_shard)
  start = sum(shard['records'] for shard in index['shards'])
  earlier = [bad for shard in index['shards'] for bad in shard['skipped']]
  limit = max_skip_fraction * total
  bar = tqdm.tqdm(total=total, initial=start, unit='image', desc=str(folder))
  record_bytes = 3 * index['recipe']['size'] ** 2
  packed = _packed(pack, range(start, total), worker_count, record_bytes)
  with bar, contextlib.closing(packed):
    for shard_index in range(len(index['shards']), count):
      length = min(per_shard, total - shard_index * per_shard)
      file = record_format.shard_name(shard_index, count)
      skipped = []
      with shard_writer.new_shard(folder / file) as write:
        for data, bad, notes in itertools.islice(packed, length):
          write(data)
          image_notes.count(image_notes.Note(*note) for note in notes)
          bar.update()
          if bad is not None:
            skipped.append(bad)
            _check_skips(earlier + skipped, limit, total)
      earlier += skipped
      shard: record_format.Shard = {
        'file': file,
        'records': length,
        'skipped': skipped,
        'bytes': (folder / file).stat().st_size,
      }
      index['shards'].append(shard)
      index['complete'] = shard_index == count - 1
      with shard_writer.failing_clearly(folder / record_format.INDEX):
        record_format.write_index(folder, index)


def _check_skips(skipped, limit, total):
  logging.warning('Skipped image %d, %s', len(skipped), skipped[-1])
  if len(skipped) > limit:
    raise ValueError(
      f'{len(skipped)} of {total} images could not be read, more than '
      f'max_skip_fraction={limit / total:.2g}; the last is {skipped[-1]}. '
      f'Repair or remove them, or raise max_skip_fraction.'
    )


def _packed(
  pack: Callable, indices: Sequence[int], worker_count: int, record_bytes: int
) -> Generator[tuple[bytes, str | None, list], None, None]:
  """Yields what `_pack_one` returns of each index, in order."""
  size = _RECORDS_PER_CHUNK

  def read(k, i):
    # Grain pickles it for its workers by value.
    n = k * size + i
    return pack(indices[n]) if n < len(indices) else None

  iterator = workers.run(
    read,
    list,
    count=-(-len(indices) // size),
    size=size,
    record_bytes=record_bytes,
    reading=workers.Reading(worker_count=worker_count),
  )
  with contextlib.closing(iterator):
    for packed in iterator:
      yield from packed


def _pack_one(source, index, *, fit):
  """Returns (bytes of one record, None or why it is unusable, its notes)."""
  try:
    element = read(source, index)
  except transforms.BadImage as error:
    return record_format.pack_bad(error), str(error), []
  try:
    image = transforms.fit(element['image'], **fit)
  except ValueError as error:
    raise ValueError(f'{_name_of(source, index)}: {error}') from None
  side = transforms.least_side(element['image'], element['short_side'])
  enlarged = image_notes.of_enlarging(
    side, fit['size'], _name_of(source, index)
  )
  notes = [tuple(note) for note in (*element.get('notes', ()), *enlarged)]
  return record_format.pack({**element, 'image': image}), None, notes


def _name_of(source, index):
  """Returns the file name of an image, or its number if it has none."""
  names = getattr(source, 'file_names', lambda: None)()
  return f'Image {index}' if names is None else printable(names[index])
