"""Reads a data set that `cdm prepare` or `cdm sample` wrote, as a source."""

import os
import shlex
from collections.abc import Iterable, Sequence

import numpy as np

from cdm.data import class_labels, record_format, shard_records, transforms
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.shard_records import Part, ShardRecords
from cdm.data.source import Element

FEW_SHARDS = 16


class ArrayRecords:
  """The images of a prepared data set, already cropped and resized.

  Attributes:
    path: folder of the data set.
    index: the contents of `index.json`, see `prepare.prepare`.
    image_size: S, pixels.
    named: whether the names of the classes are known; if not, they are numbers.
    class_names: the name of each label; () if there are none.
    num_classes: number of labels.
    fingerprint: changes when the images do.
  """

  def __init__(
    self, path: str | os.PathLike[str], class_names: Iterable[str] | None = None
  ):
    """Reads the index; of many shards, each is opened when it is read.

    Up to `FEW_SHARDS` are opened at once, and so are those of data sets of
    earlier versions, whose index has no sizes: their records are counted.

    Args:
      path: folder of a prepared data set, or an output folder of `cdm sample`
        whose samples are kept as shards. A prepared data set may be in a
        bucket (gs://): array_record reads it there.
      class_names: the names of the labels 0, 1, 2, ... The labels of a data set
        that names its classes are translated by name; the others must be
        indices into these names already. None takes the data set's own names,
        () gives all images the label 0.

    Raises:
      DamagedFile: the index or a shard is damaged.
      ValueError: the folder is not a prepared data set, or the data set is
        unfinished or lacks files, or has other classes.
    """
    self.path = os.path.expanduser(path)
    self.path = os.fspath(record_format.find_folder(self.path) or self.path)
    index = record_format.read_index(self.path)
    if index is None:
      raise ValueError(
        f'{self.path!r} is not a prepared data set: it has no '
        f'{record_format.INDEX}. '
        'Make one with: cdm prepare --source=... --size=... '
        f'--out={shlex.quote(self.path)}'
      )
    self._command = record_format.command_of(index)
    if not index['complete']:
      # `cdm sample` lists its shards at the end only.
      done = sum(shard['records'] for shard in index['shards'])
      count = f': it has {done} of {index["recipe"]["records"]} records'
      raise ValueError(
        f'{self.path!r} is unfinished{count if done else ""}. Run the same '
        f'{self._command} command again; it continues where it stopped.'
      )
    self.index = index
    self.image_size = index['recipe']['size']
    own = tuple(index['class_names'])
    # Label n of the list is the new label of the stored label n.
    stored = class_labels.Labels(
      np.arange(len(own), dtype=np.int32),
      own,
      index['recipe'].get('named', True),
    )
    names = None if class_names is None else tuple(class_names)
    labels = class_labels.translated(stored, names, self.path)
    self.named, self.class_names = stored.named, labels.class_names
    self.num_classes = len(self.class_names)
    self._labels = None if labels is stored else labels.values
    self.fingerprint = f'prepared:{index["fingerprint"]}'
    self._paths = [os.path.join(self.path, s['file']) for s in index['shards']]
    total = index['recipe']['records']
    self._check_presence(index['shards'])
    try:
      self._records = open_shards(self._paths, self._lengths(index['shards']))
      whole = len(self._records) == total
    except DamagedFile:
      whole = False
    if not whole:
      for path, shard in zip(self._paths, index['shards'], strict=True):
        check_shard(path, shard['records'], command=self._command)
      raise DamagedFile(
        f'{os.path.join(self.path, record_format.INDEX)} lists shards of other '
        f'than {total} records. Delete {self.path} and run the same '
        f'{self._command} command again.'
      )

  def _check_presence(self, shards: Sequence[record_format.Shard]) -> None:
    """Looks at every shard in a listing of the folder, and opens none.

    A shard that the listing lacks, or has in another size, is opened, which
    says what is wrong with it.
    """
    sizes: dict[str, int | None]
    if record_format.is_url(self.path):
      folder = record_format.location(self.path)
      sizes = {path.name: None for path in folder.iterdir()}
    else:
      with os.scandir(self.path) as entries:
        sizes = {e.name: e.stat().st_size for e in entries if e.is_file()}
    for path, shard in zip(self._paths, shards, strict=True):
      if shard['file'] not in sizes and not record_format.is_url(self.path):
        raise ValueError(
          f'{path} is missing; run the same {self._command} command again.'
        )
      size = sizes.get(shard['file'], -1)
      if size is not None and size != shard.get('bytes', size):
        check_shard(path, shard['records'], command=self._command)

  def _lengths(self, shards: Sequence[record_format.Shard]) -> list[int] | None:
    """Returns the number of records of every shard; None if they are counted.

    They are counted where opening the shards costs little: it finds faults that
    the sizes of files do not show.
    """
    known = all('bytes' in shard for shard in shards)
    if not known or len(shards) <= FEW_SHARDS:
      return None
    return [shard['records'] for shard in shards]

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, i: int) -> Element:
    name = f'{self.path}[{i}]'
    if not -len(self) <= i < len(self):
      raise IndexError(f'{name} of {len(self)}')
    try:
      data = self._records[i % len(self)]
    except Exception as error:  # the library's own, of several types
      if not_of_the_file(error):
        raise
      raise transforms.BadImage(
        name,
        f'its shard is damaged ({_first_line(error)}); delete the shard and '
        f'run the same {self._command} command again',
      ) from error
    element = record_format.unpack(data, name=name)
    if self._labels is not None:
      label = int(element['label'])
      if not 0 <= label < len(self._labels):
        raise transforms.BadImage(
          name, f'its label is {label}, of {len(self._labels)} classes'
        )
      element['label'] = self._labels[label]
    return element


def open_shards(
  paths: Sequence[str],
  lengths: Sequence[int] | None = None,
  *,
  command: str = 'cdm prepare',
) -> ShardRecords:
  """Returns the records of shards, as a sequence of bytes.

  Args:
    paths: the shards, in their order.
    lengths: the number of records of each, where it is known; if not, every
      shard is opened and closed again to count them. A shard is opened when
      one of its records is read, and few are open at a time.
    command: the command that wrote them, for error messages.

  Raises:
    DamagedFile: a shard is damaged; the message names the only one, if it is.
    ValueError: the package array-record is not installed.
  """
  shard_records.reader_class()  # Without it, no shard is damaged.
  try:
    if lengths is None:
      return ShardRecords(shard_records.counted(paths))
    return ShardRecords(
      [Part(path, n) for path, n in zip(paths, lengths, strict=True)]
    )
  except Exception as error:  # the library's own, of several types
    if not_of_the_file(error):
      raise
    raise DamagedFile(
      f'{", ".join(paths[:1])} is damaged ({_first_line(error)}). Run the same '
      f'{command} command again: it writes the shard anew.'
    ) from error


def check_shard(
  path: str, records: int, *, command: str = 'cdm prepare'
) -> None:
  """Opens a shard and counts its records, which are not read.

  Args:
    path: the shard.
    records: number of records that it must have.
    command: the command that wrote it, for error messages.

  Raises:
    DamagedFile: the shard is damaged, or has other than `records` records.
  """
  count = len(open_shards([path], command=command))
  if count != records:
    raise DamagedFile(
      f'{path} has {count} records and its index says {records}. Run the same '
      f'{command} command again: it writes the shard anew.'
    )


def _first_line(error):
  return str(error).split('\n')[0].split(';')[0][:200]
