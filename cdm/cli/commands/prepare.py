"""`cdm prepare`: decodes, crops and resizes a data set once."""

import re

DESCRIPTION = """\
Decode, crop and resize a data set once and write it as ArrayRecord shards,
with an index and a fingerprint of the recipe. Training on the shards gives
the same pixels as training on the originals, without the work.
"""
EPILOG = """\
WHAT is a folder of images (with or without a folder per class), or a data set
of TensorFlow Datasets as tfds:NAME:SPLIT.

examples:
  cdm prepare --source=/data/ffhq --size=128 --out=/data/ffhq128
  cdm prepare --source=tfds:imagenet2012:train --size=64 --out=/data/imagenet64
  cdm train --config=configs/cdm_imagenet64.py --workdir=runs/imagenet64 \\
      --config.train_data.kind=array_records \\
      --config.train_data.path=/data/imagenet64
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--source', required=True, metavar='WHAT', help='the data set'
  )
  parser.add_argument(
    '--size', type=int, required=True, metavar='S', help='side in pixels'
  )
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='where the shards go'
  )
  parser.add_argument(
    '--crop',
    default='center',
    choices=('center', 'none'),
    help='center square (default), or none: square images only',
  )
  parser.add_argument(
    '--filter',
    default='area',
    metavar='FILTER',
    help='area (default), bicubic, bilinear or lanczos',
  )
  parser.add_argument(
    '--data_dir', metavar='DIR', help='where TensorFlow Datasets keeps its data'
  )
  parser.add_argument(
    '--workers',
    type=int,
    default=0,
    metavar='N',
    help='processes that decode (default: 0, two threads)',
  )
  parser.add_argument(
    '--max_skip_fraction',
    type=float,
    default=0.01,
    metavar='F',
    help='stop if more images than this cannot be read (default: 0.01)',
  )


def run(args):
  """Prepares the data set, or finishes what was begun."""
  from cdm.config import datasets
  from cdm.data import prepare

  section = source_section(args.source, args.data_dir)
  source = datasets.open_source(section)
  index = prepare.prepare(
    source,
    size=args.size,
    out=args.out,
    crop=args.crop,
    filter=args.filter,
    worker_count=args.workers,
    max_skip_fraction=args.max_skip_fraction,
  )
  count = sum(shard['records'] for shard in index['shards'])
  print(
    f'{args.out}: {count} images of {args.size}x{args.size} pixels in '
    f'{len(index["shards"])} shards, fingerprint {index["fingerprint"]}.'
  )
  print(
    'Train on it with --config.train_data.kind=array_records '
    f'--config.train_data.path={args.out}'
  )


def source_section(text, data_dir):
  """-> the `train_data` section that `--source` stands for.

  Raises:
    ValueError: a TensorFlow data set without its split.
  """
  if not text.startswith('tfds:'):
    return {'kind': 'folder', 'path': text}
  _, _, rest = text.partition(':')
  # The last colon but for those of a slice, as in train[:9].
  outside = re.sub(r'\[[^\]]*\]', lambda m: ' ' * len(m[0]), rest)
  cut = max(outside.rfind(':'), 0)
  name, split = rest[:cut], rest[cut + 1 :]
  if not name:
    raise ValueError(
      f'--source={text} names no split; write tfds:NAME:SPLIT, for example '
      'tfds:imagenet2012:train.'
    )
  return {'kind': 'tfds', 'name': name, 'split': split, 'data_dir': data_dir}
