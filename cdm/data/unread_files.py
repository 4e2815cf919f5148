"""Says of a file or folder that is no data set what it is, and what would help.

The kind is told from the suffix of the name. What nobody reads as a data set
has a way to become one, and the nearest command is named.
"""

import os
import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from cdm.data import picture_files
from cdm.data.printable_name import printable

READ = (
  'Read are: a folder of pictures, a zip or tars of pictures (webdataset, '
  "ImageNet's own), parquet files, LMDB, TFRecords, .npz files, shards of "
  '`cdm prepare`, and tfds:NAME:SPLIT'
)


class _Kind(NamedTuple):
  """Files of one kind.

  Attributes:
    names: a regular expression that the lower-case name ends with.
    what: what they are.
    remedy: what to do, given the path quoted for a shell.
  """

  names: str
  what: str
  remedy: Callable[[str], str]


def _stem(path: str) -> str:
  """Returns a quoted path without its suffixes, quoted again."""
  (plain,) = shlex.split(path)
  folder, name = os.path.split(plain)
  return shlex.quote(os.path.join(folder, name.split('.')[0] or 'images'))


def _unpacked(command: str) -> Callable[[str], str]:
  return lambda path: (
    'Unpack it, and give the folder: '
    + command.format(file=path, folder=_stem(path))
  )


_KINDS = (
  _Kind(
    r'\.(mp4|m4v|avi|mov|mkv|webm|mpe?g|wmv|flv)',
    'a video',
    lambda path: (
      'Write its frames as pictures, and give their folder: mkdir '
      f'{_stem(path)} && ffmpeg -i {path} {_stem(path)}/%08d.png'
    ),
  ),
  _Kind(r'\.rar', 'a RAR archive', _unpacked('unrar x {file} {folder}/')),
  _Kind(
    r'\.7z(\.001)?', 'a 7-Zip archive', _unpacked('7z x {file} -o{folder}')
  ),
  _Kind(
    r'\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst|lz4))',
    'a compressed tar, which has no random access',
    _unpacked('mkdir {folder} && tar -xf {file} -C {folder}'),
  ),
  _Kind(
    r'\.(gz|bz2|xz|zst)',
    'a compressed file',
    lambda path: (
      'Unpack it (gunzip, bunzip2, unxz or unzstd), and give what comes out'
    ),
  ),
  _Kind(
    r'\.(csv|tsv|xlsx?|ods|jsonl?|txt|xml|ya?ml)',
    'a table or text, and no pictures',
    lambda path: (
      'Give the folder or archive of its pictures as --source; if this file '
      f'lists their labels, add --labels={path}'
    ),
  ),
  _Kind(
    r'\.(h5|hdf5|mat)',
    'an HDF5 or MATLAB file',
    lambda path: (
      'Write its pictures, uint8 [N, H, W, 3], as arr_0 and their labels as '
      'arr_1 of an .npz with numpy.savez, and give that file'
    ),
  ),
  _Kind(
    r'\.npy',
    'a single array',
    lambda path: (
      'Write it as arr_0, and its labels as arr_1, of an .npz with '
      'numpy.savez, and give that file'
    ),
  ),
  _Kind(
    r'(\.(pkl|pickle|pth?|ckpt)|data_batch_\d+|test_batch)',
    'a pickle, which could run any program when it is opened',
    lambda path: (
      'Take the data set in another form (tfds:cifar10:train, or the .npz '
      'files of image-net.org)'
    ),
  ),
  _Kind(
    r'\.arrow',
    "a file of Hugging Face's cache",
    lambda path: (
      'Write it as parquet where the package datasets is installed, and give '
      f"that file: Dataset.from_file('{path}').to_parquet('{_stem(path)}"
      ".parquet')"
    ),
  ),
  _Kind(
    r'ubyte(\.gz)?',
    'a file of MNIST',
    lambda path: 'Give tfds:mnist:train as --source',
  ),
  _Kind(
    r'\.(beton|mds|rec|iso|img|dmg|bin|idx)',
    'a file of a form that cdm does not know',
    lambda path: 'Write its pictures as files, and give their folder',
  ),
  _Kind(
    '(' + '|'.join(map(re.escape, picture_files.SUFFIXES)) + ')',
    'a single picture',
    lambda path: (
      f'Give its folder: {shlex.quote(os.path.dirname(shlex.split(path)[0]))}'
    ),
  ),
)


def refusal(path: str | os.PathLike[str]) -> str:
  """Returns why a file is no data set, what is read, and the nearest command.

  Args:
    path: a file, or what is not there.
  """
  path = os.fspath(path)
  shown = printable(repr(path))
  if not os.path.lexists(path):
    return f'{shown} is not a folder of images: it does not exist.'
  name = os.path.basename(path).lower()
  for kind in _KINDS:
    if re.search(f'{kind.names}$', name):
      break
  else:
    return f'{shown} is not a folder of images: it is another file. {READ}.'
  remedy = kind.remedy(shlex.quote(path))
  return (
    f'{shown} is not a folder of images: it is {kind.what}. {READ}. {remedy}.'
  )
