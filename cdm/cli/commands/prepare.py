"""`cdm prepare` decodes, crops and resizes a data set into shards."""

import argparse
import re
from typing import Any

from cdm.cli import label_flags

DESCRIPTION = """\
Decode, crop and resize a data set once and write it as ArrayRecord shards, with
an index and a fingerprint of the settings. Training on the shards sees the same
pixels as training on the originals, without repeating this work.
"""
EPILOG = """\
WHAT is a folder of images (with or without one sub-folder per class), a folder
of shards that `cdm sample` or `cdm prepare` wrote, or tfds:NAME:SPLIT for a
data set of TensorFlow Datasets. Hidden files and what is
no picture file are left out and counted.

examples:
  cdm prepare --source=/data/ffhq --size=128 --out=/data/ffhq128
  cdm prepare --source=tfds:imagenet2012:train --size=64 --out=/data/imagenet64
  cdm train --config=configs/cdm_imagenet64.py --workdir=runs/imagenet64 \\
      --config.train_data.kind=array_records \\
      --config.train_data.path=/data/imagenet64
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--source', required=True, metavar='WHAT', help='the data set'
  )
  parser.add_argument(
    '--size',
    type=int,
    required=True,
    metavar='S',
    help='side of the images, in pixels',
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


def run(args: argparse.Namespace) -> None:
  """Prepares the data set, or continues an unfinished preparation."""
  from cdm.config import datasets
  from cdm.data import prepare, record_format, source_check
  from cdm.distributed import folder_lock
  from cdm.reporting import output_files

  output_files.check_folder_name(args.out)
  section = source_section(args.source, args.data_dir, args.no_classes)
  if section['kind'] == 'tfds':
    section['exif_rotation'] = False  # as the decoders of TFDS
  if args.max_value is not None:
    if section['kind'] == 'array_records':
      raise ValueError(
        f'--max_value is for image files, and --source={args.source} holds '
        'shards of 8 bits; leave it out.'
      )
    section['max_value'] = args.max_value
  section = label_flags.with_flags(section, args, f'--source={args.source}')
  source = datasets.open_named(section)
  if not (record_format.location(args.out) / record_format.INDEX).exists():
    source_check.check(
      source,
      size=args.size,
      crop=args.crop,
      filter=args.filter,
      allow_enlarging=args.allow_enlarging,
      name=f'--source={args.source}',
      permit='give --allow_enlarging',
    )
  with folder_lock.FolderLock(args.out, 'cdm prepare', flag='--out'):
    index = prepare.prepare(
      source,
      size=args.size,
      out=args.out,
      crop=args.crop,
      filter=args.filter,
      worker_count=args.workers,
      max_skip_fraction=args.max_skip_fraction,
    )
  total = sum(shard['records'] for shard in index['shards'])
  skipped = sum(len(shard.get('skipped', ())) for shard in index['shards'])
  print(
    f'{args.out}: {total - skipped} images of {args.size}x{args.size} pixels '
    f'in {len(index["shards"])} shards, fingerprint {index["fingerprint"]}.'
  )
  if skipped:
    print(
      f'{skipped} of {total} images could not be used and were skipped; '
      f'{args.out}/{record_format.INDEX} names each with the reason.'
    )
  print(
    'Train on it with --config.train_data.kind=array_records '
    f'--config.train_data.path={args.out}'
  )


def source_section(
  text: str, data_dir: str | None, no_classes: bool = False
) -> dict[str, Any]:
  """Returns the config section `train_data` that `--source` stands for.

  Args:
    text: a folder of images or of shards, or tfds:NAME:SPLIT.
    data_dir: where TensorFlow Datasets keeps its data; None for its default.
    no_classes: whether the classes of a folder are not kept.

  Raises:
    ValueError: the text names a TensorFlow data set without its split, or one
      with an option for folders.
  """
  if not text.startswith('tfds:'):
    from cdm.data import record_format

    if record_format.find_folder(text) is not None:
      section = {'kind': 'array_records', 'path': text}
      return section | {'class_names': ()} if no_classes else section
    section = {'kind': 'folder', 'path': text}
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
