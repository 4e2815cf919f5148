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
import zlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import numpy as np
from absl import logging
from PIL import features

from cdm.data import (
  array_record,
  image_notes,
  picture_order,
  preparation_cost,
  record_format,
  record_stream,
  record_verification,
  shard_writer,
  transforms,
  workers,
)
from cdm.data import payload as payload_format
from cdm.data.files import atomic_files
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.payload import Payload
from cdm.data.preparation_options import Options
from cdm.data.printable_name import printable
from cdm.data.source import Source

_SHARD_BYTES = 2**28
_RECORDS_PER_CHUNK = 16  # records that a worker hands over at a time
# What the records of a shard are counted by where every image has its own size:
# the photographs of ImageNet have 110 kB.
_ORIGINAL_BYTES = 2**17


def prepare(
  source: Source,
  *,
  size: int | None,
  out: str | os.PathLike[str],
  crop: str = 'center',
  filter: str = 'area',
  **options: Any,
) -> record_format.Index:
  """Writes a prepared copy of a source, or continues an unfinished one.

  An image that is smaller than `size` is enlarged and counted; training leaves
  it out unless it is told to take it. See `source_check` for a source whose
  images are all smaller.

  Args:
    source: the images, see `cdm.data.source`.
    size: S, pixels; the pipeline that reads the copy calls it image_size. None
      keeps the size of every image, and crop and filter do nothing.
    out: folder to write.
    crop: 'center', 'squash' or 'none'.
    filter: see `transforms.fit`.
    **options: see `Options`.

  Returns:
    The index of the data set.

  Raises:
    ValueError: `out` was prepared with other settings or cannot be written, or
      too many images cannot be read.
    DamagedFile: a record that was written is read back as another.
  """
  chosen = Options(**options)
  if record_stream.image_dtype(source) != np.uint8:
    raise ValueError(
      "Arrays are trained on in place, by kind='arrays'; only images of 8 "
      'bits are prepared.'
    )
  payload = Payload(chosen.payload, chosen.quality)
  payload.check(size)
  if size is None:
    crop = filter = 'none'
  else:
    transforms.check_fit(size=size, crop=crop, filter=filter)
  if crop == 'random':
    raise ValueError("crop='random' cannot be prepared: it differs each epoch.")
  if record_format.is_url(out):
    raise ValueError(
      f'{os.fspath(out)} is in a bucket, and a data set is prepared in a file '
      'system. Prepare it on a disk and copy the folder: it is read from '
      'buckets, too.'
    )
  if size is not None:
    filter = transforms.filter_name(filter)
  if not len(source):
    raise ValueError(f'{type(source).__name__} has no images.')
  manifest = _manifest(
    source,
    dict(size=size or 0, crop=crop, filter=filter),
    payload,
    chosen.records_per_shard,
  )
  with _sole_writer(pathlib.Path(out)) as folder:
    index = _open_index(folder, manifest, source, chosen.verify)
    if not index['complete']:
      fit = None if size is None else (size, crop, filter)
      pack = functools.partial(_pack_one, source, fit=fit, payload=payload)
      _write_missing(folder, index, pack, chosen)
  return index


def _manifest(
  source: Source,
  fit: dict[str, Any],
  payload: Payload,
  records_per_shard: int | None,
) -> record_format.Manifest:
  if records_per_shard is None:
    image_bytes = 3 * fit['size'] ** 2 or _ORIGINAL_BYTES
    records_per_shard = min(65536, max(256, _SHARD_BYTES // image_bytes))
  manifest: dict[str, Any] = {
    'format': 1,
    'source': source.fingerprint,
    'records': len(source),
    **fit,
    'records_per_shard': records_per_shard,
    # Another version of the decoder may differ in the last bit of a JPEG.
    'pillow': importlib.metadata.version('pillow'),
    'libjpeg_turbo': features.version('libjpeg_turbo') or 'none',
    **payload.manifest(),
    'order': picture_order.describe(
      getattr(source, 'order', picture_order.STORED)
    ),
  }
  if not getattr(source, 'named', True):
    manifest['named'] = False
  return cast(record_format.Manifest, manifest)


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


def _open_index(folder, manifest, source, verify) -> record_format.Index:
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
      'class_names': list(source.class_names),
      'shards': [],
      'complete': False,
    }
    record_format.write_index(folder, index)
    return index
  # Earlier versions did not write these, which the fingerprint covers.
  new = {key: manifest[key] for key in ('order', 'named') if key in manifest}
  old = {**new, **found['recipe']}
  differing = [
    key for key in {**manifest, **old} if old.get(key) != manifest.get(key)
  ]
  if differing:
    there = ', '.join(f'{k} {old.get(k)!r}' for k in differing)
    asked = ', '.join(f'{k} {manifest.get(k)!r}' for k in differing)
    raise ValueError(
      f'{folder} was prepared with another manifest (there: {there}; asked '
      f'now: {asked}). Choose another folder, or delete that one.'
    )
  _drop_damaged(folder, found, verify)
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


def _drop_damaged(folder, index, verify):
  """Leaves only whole shards in the index, so that the others are written."""
  whole = []
  for shard in index['shards']:
    path = folder / shard['file']
    try:
      if not path.exists():
        logging.warning('%s is missing and is prepared again.', shard['file'])
        continue
      array_record.check_shard(str(path), shard['records'])
      if verify:
        record_verification.check_records(path, shard)
      whole.append(shard)
    except DamagedFile as error:
      logging.warning('%s', error)
  if len(whole) < len(index['shards']):
    index['shards'][:] = whole
    index['complete'] = False


def _add_sizes(folder, index):
  """Adds the sizes of whole shards to an index of an earlier version."""
  unknown = [shard for shard in index['shards'] if 'bytes' not in shard]
  for shard in unknown:
    shard['bytes'] = (folder / shard['file']).stat().st_size
  if unknown:
    with shard_writer.failing_clearly(folder / record_format.INDEX):
      record_format.write_index(folder, index)


def _write_missing(folder, index, pack, options):
  """Writes the shards that the index lacks, and lists each when complete."""
  total = index['recipe']['records']
  per_shard = index['recipe']['records_per_shard']
  count = -(-total // per_shard)
  there = {shard['file'] for shard in index['shards']}
  missing = [
    (
      record_format.shard_name(k, count),
      range(k * per_shard, total)[:per_shard],
    )
    for k in range(count)
  ]
  missing = [(file, images) for file, images in missing if file not in there]
  index['complete'] = not missing
  indices = _joined([images for _, images in missing])
  in_order = getattr(pack.args[0], 'in_order', False)
  preparation_cost.check(
    folder, pack, indices, in_order=in_order, say=options.say
  )
  earlier = [bad for shard in index['shards'] for bad in shard['skipped']]
  limit = options.max_skip_fraction * total
  bar = options.progress(total=total, initial=total - len(indices))
  record_bytes = 3 * index['recipe']['size'] ** 2 or _ORIGINAL_BYTES
  packed = _packed(pack, indices, options.worker_count, record_bytes)
  with bar, contextlib.closing(packed):
    for file, images in missing:
      skipped, checksum = [], 0
      with shard_writer.new_shard(folder / file) as write:
        for data, bad, notes in itertools.islice(packed, len(images)):
          write(data)
          checksum = zlib.crc32(data, checksum)
          image_notes.count(image_notes.Note(*note) for note in notes)
          bar.advance(1)
          if bad is not None:
            skipped.append(bad)
            _check_skips(earlier + skipped, limit, total)
      earlier += skipped
      shard: record_format.Shard = {
        'file': file,
        'records': len(images),
        'skipped': skipped,
        'bytes': (folder / file).stat().st_size,
        'crc32': checksum,
      }
      if options.verify:
        record_verification.check_records(folder / file, shard)
      index['shards'].append(shard)
      index['shards'].sort(key=lambda shard: shard['file'])
      index['complete'] = len(index['shards']) == count
      with shard_writer.failing_clearly(folder / record_format.INDEX):
        record_format.write_index(folder, index)


def _joined(parts):
  """Returns the numbers of several ranges, as a range if it can be one."""
  if not parts:
    return range(0)
  numbers = range(parts[0][0], parts[-1][-1] + 1)
  if len(numbers) == sum(map(len, parts)):
    return numbers
  return list(itertools.chain.from_iterable(parts))


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


def _pack_one(source, index, *, fit, payload):
  """Returns (bytes of one record, None or why it is unusable, its notes).

  Args:
    source: the images.
    index: index of one.
    fit: (size, crop, filter); None keeps the image as it is.
    payload: what the record holds.
  """
  try:
    element, file = payload_format.read(source, index, payload)
  except transforms.BadImage as error:
    return record_format.pack_bad(error), str(error), []
  image = element['image']
  enlarged = []
  if fit is not None:
    size, crop, filter = fit
    try:
      image = transforms.fit(image, size=size, crop=crop, filter=filter)
    except ValueError as error:
      raise ValueError(f'{_name_of(source, index)}: {error}') from None
    side = transforms.least_side(element['image'], element['short_side'])
    enlarged = image_notes.of_enlarging(side, size, _name_of(source, index))
  notes = [tuple(note) for note in (*element.get('notes', ()), *enlarged)]
  record = payload_format.pack(element, image, file, payload)
  return record, None, notes


def _name_of(source, index):
  """Returns the file name of an image, or its number if it has none."""
  names = getattr(source, 'file_names', lambda: None)()
  return f'Image {index}' if names is None else printable(names[index])
