"""Reads images in TFRecord files of NVIDIA's and TF Slim's programs."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from cdm.data import class_labels, image_decoder
from cdm.data.class_labels import Labels
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.files.transient_errors import not_of_the_file
from cdm.data.forms import (
  one_hot_labels,
  shard_files,
  tf_example,
  tfrecord_files,
  tfrecord_scan,
)
from cdm.data.forms.encoded_images import EncodedImages
from cdm.data.forms.row_names import RowNames
from cdm.data.forms.tf_example import Span
from cdm.data.printable_name import printable
from cdm.data.transforms import BadImage, UnusableImage

_MOST_BYTES_PER_PIXEL = 16  # of an image file, see `image_decoder`
_TFDS_INFO = 'dataset_info.json'
_OTHER_BYTES = 1 << 20  # of what a record holds besides


class TFRecords(EncodedImages):
  """A source of the images in TFRecord files; needs no TensorFlow.

  Two kinds of records are known:

    NVIDIA's (FFHQ, and the sets of ProGAN and StyleGAN): `shape` is (C, H, W)
    and `data` the pixels. The pixels are handed on as a PPM file. Labels are in
    NAME-rxx.labels, one number of each row being 1.

    TF Slim's (ImageNet): `image/encoded` is a JPEG file, and the classes are
    named by `image/class/synset`.
  """

  KIND = 'tfrecords'

  def __init__(
    self,
    path: str | os.PathLike[str],
    split: str | None = None,
    resolution: int | None = None,
    class_names: Iterable[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    max_pixels: int = image_decoder.MAX_PIXELS,
    max_value: float | None = None,
    exif_rotation: bool = False,
  ):
    """Lists the records, without reading the images.

    Args:
      path: a file of TFRecords, or a folder with some in it or below it.
      split: the words before the number in the names of the files, such as
        'train' of train-00000-of-01024, or NAME of NVIDIA's NAME-r10.tfrecords;
        None takes the only ones.
      resolution: pixels, of NVIDIA's files; None takes the largest.
      class_names: see `encoded_images.EncodedImages`.
      labels: a file with the label of each image, see `label_file`, in place of
        the data set's own.
      max_pixels, max_value, exif_rotation: see `encoded_images.EncodedImages`.

    Raises:
      DamagedFile: a file is damaged, cut short, missing or of another kind.
      ValueError: there are no such files, or the records are of another kind.
    """
    path = os.path.expanduser(path)
    names = None if class_names is None else tuple(class_names)
    self._files = tfrecord_files.choose(path, split, resolution)
    self._root = (path if os.path.isdir(path) else os.path.dirname(path)) or '.'
    found = tfrecord_scan.scan(self._files)
    self._records, self._is_raw = found.records, found.is_raw
    self._most_bytes = _MOST_BYTES_PER_PIXEL * max_pixels + _OTHER_BYTES
    count = len(found.records.begin)
    without_own = names == () or labels is not None
    own = class_labels.none(count) if without_own else self._own(found)
    super().__init__(
      path,
      found.names if found.names is not None else self._row_names(),
      own,
      class_names=names,
      max_pixels=max_pixels,
      max_value=max_value,
      label_path=labels,
      exif_rotation=exif_rotation,
    )

  @staticmethod
  def holds(path: str) -> bool:
    """Returns whether a path is called like TFRecords, or holds such files.

    The files of tensorflow-datasets are not meant.
    """
    if os.path.isdir(path):
      if os.path.isfile(os.path.join(path, _TFDS_INFO)):
        return False
      return shard_files.has_any(path, tfrecord_files.is_tfrecord)
    name = os.path.basename(path)
    return tfrecord_files.is_tfrecord(name) and os.path.isfile(path)

  def read_bytes(self, i: int) -> bytes:
    """Returns the image file of record i; pixels become a PPM or PGM file.

    Raises:
      transforms.BadImage: the record is damaged.
    """
    begin, length = (int(array[i]) for array in self._records[1:])
    if length > self._most_bytes:
      raise UnusableImage(
        self.name_of(i),
        f'its record has {length:,} bytes, too many for an image of at most '
        f'{self._limits["max_pixels"]:,} pixels',
      )
    file = self._files[self._records.file[i]]
    try:
      data = tfrecord_scan.read(file, begin, length)
      return _image_file(data, self._is_raw)
    except (DamagedFile, tf_example.Malformed) as error:
      if not_of_the_file(error):
        raise
      raise BadImage(
        self.name_of(i),
        f'the record is damaged ({str(error).rstrip(".")}); copy or download '
        f'{self._relative(file)} again',
      ) from error

  def stamp(self) -> Iterator[str]:
    """Yields the names and sizes of the files."""
    for path in self._files:
      yield f'{self._relative(path)}\0{os.stat(path).st_size}'

  def _relative(self, path):
    return os.path.relpath(path, self._root)

  def _row_names(self) -> Sequence[str]:
    counts = np.bincount(self._records.file, minlength=len(self._files))
    return RowNames(list(map(self._relative, self._files)), counts.tolist())

  def _own(self, found: tfrecord_scan.Scan) -> Labels:
    """Returns the labels that the data set itself gives its images."""
    count = len(found.records.begin)
    if found.is_raw:
      file = tfrecord_files.labels_of(self._files[0])
      none = class_labels.none(count)
      return none if file is None else one_hot_labels.read(file, count)
    labels = found.labels
    if labels is None:
      return class_labels.none(count)
    if not labels.named and labels.values.min() >= 1:
      raise ValueError(
        f'{printable(self._files[0])} and the files beside it have labels from '
        f'{labels.values.min()} to {labels.values.max()} and no names of '
        'classes, so it is not known whether class 0 exists. Add the feature '
        'image/class/text, or read the images without classes '
        '(class_names=() in a config, --no_classes of `cdm prepare`).'
      )
    return labels


def _image_file(data: bytes, is_raw: bool) -> bytes:
  """Returns the image file in a record."""
  take = tf_example.taker(data)
  features = tf_example.features(take, Span(0, len(data)))
  key = tfrecord_scan.DATA if is_raw else tfrecord_scan.IMAGE
  if key not in features:
    raise tf_example.Malformed(f'it has no feature {key}')
  spans = tf_example.byte_spans(take, features[key])
  if len(spans) != 1:
    raise tf_example.Malformed(f'its feature {key} has {len(spans)} values')
  image = data[spans[0].begin : spans[0].end]
  if not is_raw:
    return image
  feature = features.get(tfrecord_scan.SHAPE)
  shape = tf_example.ints(take, feature) if feature is not None else []
  return _portable_pixmap(shape, image)


def _portable_pixmap(shape, data):
  """Returns pixels [C, H, W] as the bytes of a PPM or PGM file."""
  if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
    raise tf_example.Malformed(
      f'its shape is {tuple(shape[:6])}, and three channels or one, height and '
      'width were expected'
    )
  if math.prod(shape) != len(data):
    raise tf_example.Malformed(
      f'it has {len(data):,} bytes of pixels, and its shape is {tuple(shape)}'
    )
  channels, height, width = shape
  pixels = np.frombuffer(data, np.uint8).reshape(shape)
  magic = 'P6' if channels == 3 else 'P5'
  head = f'{magic}\n{width} {height}\n255\n'.encode()
  return head + np.ascontiguousarray(pixels.transpose(1, 2, 0)).tobytes()
