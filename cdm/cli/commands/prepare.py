"""`cdm prepare` decodes, crops and resizes a data set into shards."""

import argparse
import functools
import re
from typing import Any

from cdm.cli import label_flags

DESCRIPTION = """\
Decode, crop and resize a data set once and write it as ArrayRecord shards, with
an index and a fingerprint of the settings. Training on the shards sees the same
pixels as training on the originals, without repeating this work. A run that was
stopped continues after its last whole shard.
"""
EPILOG = """\
WHAT is a folder of images (with or without one sub-folder per class), a file or
folder of one of the forms in docs/data.md (zip, tar, parquet, LMDB, TFRecords,
.npz), a folder of shards that `cdm sample` or `cdm prepare` wrote, or
tfds:NAME:SPLIT for a data set of TensorFlow Datasets. Its form is recognised;
--source.KEY=VALUE sets a key of it, such as --source.kind. Hidden files and
what is no picture file are left out and counted.

examples:
  cdm prepare --source=/data/ffhq --size=128 --out=/data/ffhq128
  cdm prepare --source=tfds:imagenet2012:train --size=64 --out=/data/imagenet64
  cdm train --config=configs/cdm_imagenet64.py --workdir=runs/imagenet64 \\
      --config.train_data.kind=array_records \\
      --config.train_data.path=/data/imagenet64
  cdm prepare --source=ILSVRC2012_img_train.tar --size=original \\
      --out=/data/imagenet
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--source', required=True, metavar='WHAT', help='the data set'
  )
  parser.add_argument(
    '--size',
    required=True,
    metavar='S',
    help='side of the images in pixels, or "original" to keep the files as '
    'they are and crop and resize them in training',
  )
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='folder for the shards'
  )
  parser.add_argument(
    '--crop',
    default='center',
    choices=('center', 'squash', 'none'),
    help='center: crop to the central square (default); squash: resize the '
    'whole image to a square, as downsampled ImageNet; none: accept square '
    'images only',
  )
  parser.add_argument(
    '--filter',
    default='area',
    metavar='FILTER',
    help='filter to resize with: area (default), bicubic, bilinear, lanczos, '
    "box, or box_then_bicubic, which is that of ADM's loader and also called "
    'center_crop_dhariwal',
  )
  parser.add_argument(
    '--allow_enlarging',
    action='store_true',
    help='also prepare images that are all smaller than S (default: refuse '
    'them)',
  )
  parser.add_argument(
    '--payload',
    choices=('raw', 'png', 'jpeg'),
    help='what a record holds: raw pixels, the quickest to read (default), '
    'a PNG file of the same pixels (default for --size=original), or a JPEG '
    'file, the smallest. With png and jpeg, JPEG and PNG files whose size does '
    'not change are kept byte for byte',
  )
  parser.add_argument(
    '--quality',
    type=int,
    default=95,
    metavar='Q',
    help='quality of the JPEG files that are written (default: 95)',
  )
  parser.add_argument(
    '--verify',
    action='store_true',
    help='read every record and compare it with its checksum, also in shards '
    'that an earlier run wrote; what is damaged is prepared again',
  )
  parser.add_argument(
    '--no_classes',
    action='store_true',
    help='the sub-folders are no classes: prepare all images without labels',
  )
  label_flags.arguments(parser)
  parser.add_argument(
    '--data_dir',
    metavar='DIR',
    help='folder in which TensorFlow Datasets keeps its data',
  )
  parser.add_argument(
    '--max_value',
    type=float,
    metavar='V',
    help='value of white in images of 16 or more bits that do not state it, '
    'for example 4095 for 12 bits (default: 65535)',
  )
  parser.add_argument(
    '--workers',
    type=int,
    default=0,
    metavar='N',
    help='number of worker processes that decode (default: 0, for threads)',
  )
  parser.add_argument(
    '--max_skip_fraction',
    type=float,
    default=0.01,
    metavar='F',
    help='stop if a larger fraction of images cannot be read (default: 0.01)',
  )
  parser.set_defaults(source_keys=[])


def run(args: argparse.Namespace) -> None:
  """Prepares the data set, or continues an unfinished preparation."""
  from cdm.config import datasets
  from cdm.data import prepare, record_format, source_check
  from cdm.distributed import folder_lock
  from cdm.reporting import output_files, progress

  size = size_argument(args.size)
  output_files.check_folder_name(args.out)
  keys = dict(args.source_keys)
  section = source_section(
    args.source, args.data_dir, args.no_classes, keys.get('kind')
  )
  if section['kind'] == 'tfds':
    section['exif_rotation'] = False  # as the decoders of TFDS
  takes = datasets.keys_of(section)
  if 'in_order' in takes:
    section['in_order'] = True
  if args.max_value is not None:
    if 'max_value' not in takes:
      raise ValueError(
        f'--max_value is for image files, and --source={args.source} holds '
        'shards of 8 bits; leave it out.'
      )
    section['max_value'] = args.max_value
  section = label_flags.with_flags(section, args, f'--source={args.source}')
  section = with_keys(section, args.source_keys)
  source = datasets.open_named(section)
  index_path = record_format.location(args.out) / record_format.INDEX
  if size is not None and not index_path.exists():
    source_check.check(
      source,
      size=size,
      crop=args.crop,
      filter=args.filter,
      allow_enlarging=args.allow_enlarging,
      name=f'--source={args.source}',
      permit='give --allow_enlarging',
    )
  with folder_lock.FolderLock(args.out, 'cdm prepare', flag='--out'):
    index = prepare.prepare(
      source,
      size=size,
      out=args.out,
      crop=args.crop,
      filter=args.filter,
      worker_count=args.workers,
      max_skip_fraction=args.max_skip_fraction,
      payload=args.payload or ('png' if size is None else 'raw'),
      quality=args.quality,
      verify=args.verify,
      progress=functools.partial(progress.Progress, args.out),
      say=print,
    )
  total = sum(shard['records'] for shard in index['shards'])
  skipped = sum(len(shard.get('skipped', ())) for shard in index['shards'])
  print(
    f'{args.out}: {total - skipped} images of '
    + ('their original sizes ' if size is None else f'{size}x{size} pixels ')
    + f'in {len(index["shards"])} shards, fingerprint {index["fingerprint"]}.'
  )
  if args.verify:
    print(f'All {total} records were read and agree with their checksums.')
  if skipped:
    print(
      f'{skipped} of {total} images could not be used and were skipped; '
      f'{args.out}/{record_format.INDEX} names each with the reason.'
    )
  print(
    'Train on it with --config.train_data.kind=array_records '
    f'--config.train_data.path={args.out}'
  )


def size_argument(text: str) -> int | None:
  """Returns the value of `--size`, None for 'original'.

  Raises:
    ValueError: it is neither a number nor that word.
  """
  if text == 'original':
    return None
  if not re.fullmatch(r'-?\d{1,9}', text):
    raise ValueError(
      f'--size={text} is no number of pixels; give one, or --size=original.'
    )
  return int(text)


def with_keys(
  section: dict[str, Any], keys: list[tuple[str, str]]
) -> dict[str, Any]:
  """Returns a section with the keys that `--source.KEY=VALUE` sets.

  Raises:
    ValueError: the form of the source takes no such key or value.
  """
  from cdm.config import datasets, facial_priors, override_value

  given = {key: override_value.parse(text, None, key) for key, text in keys}
  if not given:
    return section
  for key in facial_priors.KEYS:
    if key in given:
      raise ValueError(
        f'--source.{key} is given, but prepared shards keep neither landmarks '
        'nor parts of faces. Train from the pictures themselves, with '
        f'--config.train_data.{key}={given[key]}.'
      )
  try:
    datasets.check_section('source', section | given)
  except ValueError as error:
    text = str(error).replace('--config.source', '--source')
    raise ValueError(text.replace('config.source', '--source')) from error
  return section | given


def source_section(
  text: str,
  data_dir: str | None,
  no_classes: bool = False,
  kind: str | None = None,
) -> dict[str, Any]:
  """Returns the config section `train_data` that `--source` stands for.

  Args:
    text: a folder of images or of shards, a file or folder of another form, or
      tfds:NAME:SPLIT.
    data_dir: where TensorFlow Datasets keeps its data; None for its default.
    no_classes: whether the classes of a folder are not kept.
    kind: the form of a file or folder; None recognises it.

  Raises:
    ValueError: the text names a TensorFlow data set without its split, or one
      with an option for folders, or what holds no data set that is read.
  """
  if not text.startswith('tfds:'):
    from cdm.config import datasets, recognized_source

    if kind not in (None, *datasets.SOURCES):
      raise ValueError(
        f'--source.kind={kind} is not known; known are '
        f'{", ".join(sorted(datasets.SOURCES))}.'
      )
    section: dict[str, Any] = {'kind': kind, 'path': text}
    if kind is None:
      section = recognized_source.section(text, datasets.SOURCES)
    return section | {'class_names': ()} if no_classes else section
  if no_classes:
    raise ValueError(
      f'--no_classes is for a folder of images, and --source={text} is none.'
    )
  _, _, rest = text.partition(':')
  # The split follows the last colon, not counting those of a slice, such as
  # train[:9].
  outside = re.sub(r'\[[^\]]*\]', lambda m: ' ' * len(m[0]), rest)
  cut = max(outside.rfind(':'), 0)
  name, split = rest[:cut], rest[cut + 1 :]
  if not name:
    raise ValueError(
      f'--source={text} names no split; write tfds:NAME:SPLIT, for example '
      'tfds:imagenet2012:train.'
    )
  return {'kind': 'tfds', 'name': name, 'split': split, 'data_dir': data_dir}
