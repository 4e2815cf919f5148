"""Reads images in Parquet files, as Hugging Face distributes data sets."""

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from cdm.data import image_decoder
from cdm.data.error_line import first_line
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.forms import parquet_rows, parquet_scan, shard_files
from cdm.data.forms.encoded_images import EncodedImages
from cdm.data.forms.row_names import RowNames
from cdm.data.printable_name import printable
from cdm.data.transforms import BadImage, UnusableImage

_SUFFIXES = ('.parquet', '.parq')
# An image costs more than this to read, and more than so many times its bytes.
_COSTLY_BYTES, _COSTLY_TIMES = 1 << 22, 8


class Parquet(EncodedImages):
  """A source of the image files in the rows of Parquet files.

  It needs the package pyarrow, extra `parquet`. Reading in order decodes each
  row once. Reading at random, as training does, decodes half a row group per
  image: about 5 MB of the usual 100 rows of ImageNet. `cdm prepare` makes a
  copy without this cost.
  """

  KIND = 'parquet'

  def __init__(
    self,
    path: str | os.PathLike[str],
    split: str | None = None,
    columns: Sequence[str] | None = None,
    class_names: Iterable[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    max_pixels: int = image_decoder.MAX_PIXELS,
    max_value: float | None = None,
    exif_rotation: bool = False,
  ):
    """Lists the rows, without reading the images.

    Args:
      path: a .parquet file, or a folder with some in it or below it.
      split: the words before the number in the names of the files, such as
        'train' of train-00000-of-00294.parquet; None takes the only ones.
      columns: the column of the images, and that of the labels if there are
        two. None takes the only column of images. Unless they are given, the
        labels are in the only column with class names, or else in the one
        called 'label'. A dot leads into a column of several fields. ImageNet's
        classes are named by their WordNet ids if the original file names tell
        them, and otherwise by the words that the files hold.
      class_names: see `encoded_images.EncodedImages`.
      labels: a file with the label of each image, see `label_file`, in place of
        the data set's own.
      max_pixels, max_value, exif_rotation: see `encoded_images.EncodedImages`.

    Raises:
      DamagedFile: a file is damaged, missing, or of another kind.
      ValueError: there are no such files, splits or columns, or pyarrow is not
        installed.
    """
    path = os.path.expanduser(path)
    self._files = _files(path, split)
    names = None if class_names is None else tuple(class_names)
    found = parquet_scan.scan(
      self._files,
      tuple(columns or ()),
      with_labels=names != () and labels is None,
    )
    self._groups, self._column = found.groups, found.image
    self._ends = np.cumsum(found.groups.rows)
    self._root = (path if os.path.isdir(path) else os.path.dirname(path)) or '.'
    super().__init__(
      path,
      found.names if found.names is not None else self._row_names(),
      found.labels,
      class_names=names,
      max_pixels=max_pixels,
      max_value=max_value,
      label_path=labels,
      exif_rotation=exif_rotation,
    )
    self._say_cost()

  @staticmethod
  def holds(path: str) -> bool:
    """Returns whether a path is a .parquet file, or a folder with some."""
    if os.path.isdir(path):
      return shard_files.has_any(path, _is_parquet)
    return _is_parquet(path) and os.path.isfile(path)

  def read_bytes(self, i: int) -> bytes:
    """Returns the image file in row i of all files.

    Raises:
      transforms.BadImage: the row group is damaged, or the row has no bytes.
    """
    n = int(np.searchsorted(self._ends, i, side='right'))
    row = i - int(self._ends[n] - self._groups.rows[n])
    file = self._files[self._groups.file[n]]
    group = int(self._groups.number[n])
    place = parquet_rows.Place(file, group, self._column)
    try:
      data = parquet_rows.read(place, row)
    except (MemoryError, FileNotFoundError, PermissionError):
      raise
    except Exception as error:  # pyarrow's own, of several types
      if not_of_the_file(error):
        raise
      raise BadImage(
        self.name_of(i),
        f'row group {group} of {self._relative(file)} is damaged '
        f'({first_line(error)}); download the file again',
      ) from error
    if data is None:
      raise UnusableImage(
        self.name_of(i),
        f'row {row} of row group {group} of {self._relative(file)} holds no '
        'bytes of an image, only its path elsewhere or nothing',
      )
    return data

  def stamp(self) -> Iterator[str]:
    """Yields the names and sizes of the files."""
    yield self._column
    for path in self._files:
      yield f'{self._relative(path)}\0{os.stat(path).st_size}'

  def _relative(self, path):
    return os.path.relpath(path, self._root)

  def _row_names(self) -> Sequence[str]:
    rows = np.bincount(
      self._groups.file, self._groups.rows, minlength=len(self._files)
    )
    files = [self._relative(path) for path in self._files]
    return RowNames(files, rows.astype(int).tolist())

  def _say_cost(self):
    """Logs what reading at random costs, if it costs much."""
    groups = self._groups
    rows, stored = int(groups.rows.sum()), int(groups.bytes.sum())
    # Of the row group that a row lies in, half is read on average.
    per_image = float((groups.rows * groups.bytes).sum()) / (2 * rows)
    if per_image > max(_COSTLY_BYTES, _COSTLY_TIMES * stored / rows):
      logging.warning(
        'Reading %s in random order, as training does, decodes %.1f MB for '
        'each image of %.2f MB, because its row groups have up to %d rows. '
        '`cdm prepare --source=%s` makes a copy without this cost.',
        printable(self.path),
        per_image / 1e6,
        stored / rows / 1e6,
        groups.rows.max(),
        printable(self.path),
      )


def _is_parquet(name):
  return name.lower().endswith(_SUFFIXES)


def _files(path, split):
  """Returns the paths of the files of one split."""
  if not os.path.isdir(path):
    if not os.path.isfile(path):
      raise ValueError(
        f'{printable(path)} does not exist; give a .parquet file, or a folder '
        'of them.'
      )
    folder = os.path.dirname(path) or '.'
    return shard_files.choose(folder, [path], split, is_whole=False)
  files = shard_files.list_files(path, _is_parquet)
  if not files:
    raise ValueError(
      f'{printable(path)} has no .parquet file in it or up to three folders '
      'below it. Give the folder that holds them.'
    )
  return shard_files.choose(path, files, split)
