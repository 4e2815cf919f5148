"""`cdm cas` computes the classification accuracy score of labelled samples."""

import argparse

from cdm.cli import drawing_flags
from cdm.distributed import collectives, initialize

DESCRIPTION = """\
Train a classifier (ResNet-50) on labelled samples only, test it on real images
and print its top-1 and top-5 accuracy: the classification accuracy score. The
classifier is trained as by `cdm train`. If the command was interrupted, the
same command continues the drawing of samples, the training (bit for bit) or the
test.

Writes into WORKDIR what `cdm train` writes, samples/ (if samples are drawn),
cas.json (the data that the score belongs to), row.json and row.md (the score,
and all settings that it depends on).
"""
EPILOG = """\
WHAT names a labelled set of images:
  FOLDER              one sub-folder per class, or the output folder of
                      `cdm sample` or `cdm prepare`
  FILE.npz            arr_0: images, arr_1: labels
  CONFIG.py:train     the training or evaluation data of a config ("real images"
  CONFIG.py:eval      in the paper's table), cropped and resized as --config
                      states
  CONFIG.py@DIR       a trained cascade, of which --num labelled samples are
                      drawn first

examples:
  cdm cas --config=configs/cas_imagenet128.py --workdir=runs/cas_real
  cdm cas --config=configs/cas_imagenet128.py --workdir=runs/cas_cdm \\
      --samples=configs/cdm_cascade128.py@runs/cdm --num=1281167
  cdm cas --config=configs/cas_photos.py --workdir=runs/cas_photos \\
      --samples=runs/photos/samples

exit codes: see `cdm train --help`.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--config', required=True, metavar='FILE', help='config of a classifier'
  )
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='work directory of this score',
  )
  parser.add_argument(
    '--samples',
    metavar='WHAT',
    help="images to train on (default: the config's train_data)",
  )
  parser.add_argument(
    '--test',
    metavar='WHAT',
    help="images to test on (default: the config's eval_data)",
  )
  parser.add_argument(
    '--num',
    type=int,
    metavar='N',
    help='number of samples to draw from CONFIG.py@DIR',
  )
  parser.add_argument(
    '--seed',
    type=int,
    metavar='S',
    help="random seed of drawn samples (default: that of the cascade's config)",
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images per batch when testing, in each process (default: 64 on each '
    'of its accelerators, on CPUs 64)',
  )
  drawing_flags.arguments(parser)
  parser.add_argument(
    '--out',
    metavar='FILE',
    help='file for the row (default: WORKDIR/row.json)',
  )
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='replace files of earlier results that have the name of --out',
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
  """Computes the score and returns the exit code of the training."""
  import pathlib

  from cdm.config import loader
  from cdm.distributed import compilation_cache, folder_lock
  from cdm.evaluation import result_line
  from cdm.evaluation.classification import cas

  check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  if args.out and collectives.is_first():
    result_line.check(args.out, overwrite=args.overwrite)
  compilation_cache.enable_compilation_cache()
  workdir = pathlib.Path(args.workdir)
  with folder_lock.hold(workdir, 'cdm cas', flag='--workdir'):
    code, row = cas.score(
      loader.load(args.config, args.overrides),
      workdir,
      samples=args.samples,
      test=args.test,
      batch_size=args.batch_size,
      drawing=cas.Drawing(
        args.num,
        args.seed,
        drawing_flags.checkpoint(args.at, args.ema),
        args.batch_per_device,
        drawing_flags.redraws(args),
      ),
    )
    if row is not None and collectives.is_first():
      path = result_line.write(row, args.out or workdir / 'row.json')
      print(f'{result_line.line(row)}\n{path}')
  return code


def check(args: argparse.Namespace) -> None:
  """Raises ValueError if options contradict each other or are out of range."""
  drawn = args.samples is not None and '.py@' in args.samples
  for option in ('num', 'seed'):
    if getattr(args, option) is not None and not drawn:
      raise ValueError(
        f'--{option} is for drawn samples, but --samples={args.samples} is not '
        'CONFIG.py@DIR.'
      )
  drawing_flags.check(args, draws=drawn)
  for option in ('num', 'batch_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it must be at least 1.')
  if args.seed is not None and not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')
