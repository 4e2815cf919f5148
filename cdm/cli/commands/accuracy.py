"""`cdm accuracy` measures the top-1 and top-5 error of ResNet-50 on images."""

import argparse

from cdm.cli import drawing_flags, label_flags
from cdm.distributed import collectives, initialize

DESCRIPTION = """\
Measure the top-1 and top-5 error of torchvision's ResNet-50 in one of two ways.

With --workdir, on the output of a super-resolution stage (SR3, table 3), next
to bicubic enlargement and the originals. The central 224 x 224 pixels of each
image are shrunk by the stage's factor (to 56), enlarged bicubically to its
input size (64), super-resolved, and resized back to 224.

With --samples, on a labelled set of images.

Prints one JSON row; --out also writes it to a file, with a line of Markdown
beside it. If the command was killed, the same command continues it. Classes are
identified by their WordNet id (n01440764, ...).
"""
EPILOG = """\
WHAT names a labelled set of images:
  FOLDER              one sub-folder per class, named by WordNet id
  FILE.npz            arr_0: images, arr_1: labels, as `cdm sample` writes it
  CONFIG.py:train     the training or evaluation data of a config as stored,
  CONFIG.py:eval      without its preprocessing

examples:
  cdm accuracy --workdir=runs/sr3 --num=1000 \\
      --reference=configs/sr3_imagenet64to256.py:eval --out=row.json
  cdm accuracy --samples=configs/cdm_imagenet64to256.py:eval
  cdm accuracy --samples=ILSVRC2012_img_val --labels=LOC_val_solution.csv
  cdm accuracy --samples=runs/cdm/samples --classifier_weights=FILE.pth

weights: they are downloaded once (98 MB) into the user's cache. Without a
network connection give torchvision's resnet50-0676ba61.pth as
--classifier_weights.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--workdir',
    metavar='DIR',
    help='work directory of a trained super-resolution stage; or a method '
    'without training, as bicubic:CONFIG.py',
  )
  parser.add_argument(
    '--samples',
    metavar='WHAT',
    help='labelled set of images, instead of a stage',
  )
  label_flags.arguments(parser)
  parser.add_argument(
    '--reference',
    metavar='WHAT',
    help='original images for the stage (default: its own held-out data)',
  )
  parser.add_argument(
    '--num',
    type=int,
    metavar='N',
    help='number of images: for ImageNet the first N by file name, for other '
    'sets N spread over the set (default: all)',
  )
  parser.add_argument(
    '--seed',
    type=int,
    metavar='S',
    help="random seed of the stage's noise (default: 0)",
  )
  parser.add_argument(
    '--level',
    type=float,
    metavar='L',
    help='augmentation level of the low-res input (default: 0)',
  )
  parser.add_argument(
    '--classifier_weights',
    metavar='FILE',
    help='weights of ResNet-50 (default: downloaded)',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images that the classifier judges at once, in each process (default: '
    '64 on each of its accelerators, on CPUs 64)',
  )
  drawing_flags.arguments(parser)
  parser.add_argument(
    '--out', metavar='FILE', help='also write the row to this file'
  )
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='replace files of earlier results that have the name of --out',
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
  """Measures the errors and prints them as a JSON row."""
  import json

  from cdm.distributed import compilation_cache
  from cdm.evaluation import result_line
  from cdm.evaluation.classification import labelled_set, published_resnet
  from cdm.evaluation.image_selection import StageSampling

  check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  if args.out and collectives.is_first():
    result_line.check(args.out, overwrite=args.overwrite)
  compilation_cache.enable_compilation_cache()
  if args.samples is not None:
    row = published_resnet.evaluate_set(
      args.samples,
      section=label_flags.with_flags(
        labelled_set.section(args.samples), args, f'--samples={args.samples}'
      ),
      num=args.num,
      weights=args.classifier_weights,
      batch_size=args.batch_size,
    )
  else:
    sampling = StageSampling(
      num=args.num,
      seed=args.seed or 0,
      level=args.level or 0.0,
      overrides=args.overrides,
      at=drawing_flags.checkpoint(args.at, args.ema),
      batch_per_device=args.batch_per_device,
      redraws=drawing_flags.redraws(args),
    )
    row = published_resnet.evaluate_stage(
      args.workdir,
      sampling,
      reference=args.reference,
      weights=args.classifier_weights,
      batch_size=args.batch_size,
    )
  if collectives.is_first():
    print(json.dumps(row))
    if args.out:
      result_line.write(row, args.out)


def check(args: argparse.Namespace) -> None:
  """Raises ValueError if options contradict each other or are out of range."""
  if (args.samples is None) == (args.workdir is None):
    raise ValueError(
      'cdm accuracy takes --workdir=DIR of a super-resolution stage or '
      '--samples=WHAT; give one of the two.'
    )
  if args.samples is not None:
    for option in ('reference', 'seed', 'level', 'overrides'):
      if getattr(args, option) not in (None, []):
        raise ValueError(
          f'--{option.replace("overrides", "config...")} is for a stage, but '
          f'--samples={args.samples} is a set of images.'
        )
  for option in label_flags.KEYS if args.samples is None else ():
    if getattr(args, option) is not None:
      raise ValueError(
        f'--{option} is for --samples=WHAT; leave it out, or give the key to '
        f'the held-out data: --config.eval_data.{option}=VALUE.'
      )
  drawing_flags.check(args, draws=args.workdir is not None)
  for option in ('num', 'batch_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it must be at least 1.')
  if args.seed is not None and not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')
