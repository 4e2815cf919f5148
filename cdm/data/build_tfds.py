"""Builds a data set of tensorflow-datasets for random access.

  python -m cdm.data.build_tfds NAME [DATA_DIR]

It says first how much room that needs and where, and refuses a disk that is too
small. TFDS sorts the records into a thousand temporary files, so the limit of
open files is raised as far as the system lets.
"""

import importlib
import math
import os
import pathlib
import shutil
import sys
from typing import Any

from cdm.data import tfds
from cdm.data.shown_bytes import shown

# Of the originals: records hold the bytes of the pictures, and the temporary
# files are deleted while the shards are written. Measured with tars of 1.33 GB
# in 12,000 files: at most 1.32 GB more at any time, at 33 MB/s on two cores
# that others used too.
_OUTPUT, _TEMPORARY = 1.0, 0.1
_BYTES_PER_SECOND = 3.3e7


def build(name: str, data_dir: str | os.PathLike[str] | None = None) -> None:
  """Builds a data set as ArrayRecord files.

  Args:
    name: the name in TFDS.
    data_dir: the folder where TFDS keeps data sets; None is TFDS's default.

  Raises:
    ValueError: TensorFlow is not installed, files that have to be fetched by
      hand are missing, or the disk is too small.
  """
  missing = tfds.tensorflow_first()
  if missing:
    raise ValueError(f'{missing}Nothing was built.')
  library = tfds.import_library()
  builder = tfds.new_builder(library, name, data_dir)
  if not builder.is_prepared():
    print(check_room(builder, name), flush=True)
  _raise_limit()
  new = library.builder(name, data_dir=data_dir, file_format='array_record')
  new.download_and_prepare()
  print(f'{name} is in {new.data_dir}.')


def check_room(builder: Any, name: str) -> str:
  """Returns a line about the room that a build needs.

  Raises:
    ValueError: the disk is too small, or a file that has to be fetched by hand
      is missing.
  """
  if '://' in os.fspath(builder.data_dir_root):
    return f'{name} is built in {builder.data_dir_root}, whose room is unknown.'
  root = pathlib.Path(os.fspath(builder.data_dir_root))
  manual = root / 'downloads' / 'manual'
  files = builder.url_infos or {}
  originals = sum(int(info.size) for info in files.values())
  by_hand = bool(builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
  if by_hand:
    tars = [p for p in manual.glob('*') if p.is_file()]
    if not tars:
      text = ' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
      raise ValueError(f'{manual} has no files. {text}')
    originals = sum(path.stat().st_size for path in tars)
  if not originals:
    return f'{name} does not say how much room it needs in {root}.'
  downloads = 0 if by_hand else originals
  needed = downloads + math.ceil((_OUTPUT + _TEMPORARY) * originals)
  free = shutil.disk_usage(_existing(root)).free
  hours = originals / _BYTES_PER_SECOND / 3600
  told = (
    f'{name} needs about {shown(needed)} in {root}: {shown(downloads)} of '
    f'downloads, {shown(_OUTPUT * originals)} of records and '
    f'{shown(_TEMPORARY * originals)} of temporary files; {shown(free)} are '
    f'free. It takes about {max(hours, 0.1):.1f} hours.'
  )
  # Several configs of one data set share its list of files.
  if needed > free and not builder.BUILDER_CONFIGS:
    raise ValueError(
      f'{told} That does not fit. Free space, or build it in another folder: '
      f'give its path as the last argument, and as data_dir of the config.'
    )
  return told


def _existing(path: pathlib.Path) -> pathlib.Path:
  """Returns a folder, or the nearest above it that is there."""
  return next(p for p in (path, *path.resolve().parents) if p.is_dir())


def _raise_limit() -> None:
  try:
    resource = importlib.import_module('resource')
  except ImportError:  # Windows has no such limit.
    return
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
  if soft != resource.RLIM_INFINITY and soft < wanted:
    try:
      resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS may allow less than it says.
      pass


if __name__ == '__main__':
  if len(sys.argv) not in (2, 3) or sys.argv[1].startswith('-'):
    sys.exit(__doc__)
  try:
    build(*sys.argv[1:])
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
