"""`cdm accuracy`: how often ResNet-50 is wrong about images."""

from cdm.distributed import collectives, initialize

DESCRIPTION = """\
Top-1 and top-5 error of torchvision's ResNet-50. With --workdir, of the images
that a super-resolution stage makes of small ones, beside bicubic enlargement
and the unshrunk originals (SR3, table 3): the middle 224 pixels of an image are
shrunk by the stage's factor (to 56), enlarged bicubically to its input (64),
super-resolved, and brought back to 224. With --samples, of a labelled set.

Prints one JSON row; --out also writes it, and a line of Markdown beside it. A
killed run continues. Classes go by WordNet id (n01440764, ...).
"""
EPILOG = """\
WHAT is
  FOLDER              a sub-folder per class, named by WordNet id
  FILE.npz            arr_0 pictures, arr_1 labels, as `cdm sample` writes it
  CONFIG.py:train     the data of a config, as it is stored
  CONFIG.py:eval

examples:
  cdm accuracy --workdir=runs/sr3 --num=1000 \\
      --reference=configs/sr3_imagenet64to256.py:eval --out=row.json
  cdm accuracy --samples=configs/cdm_imagenet64to256.py:eval
  cdm accuracy --samples=runs/cdm/samples --classifier_weights=FILE.pth

weights: fetched once (98 MB) into the user's cache; without a network give
--classifier_weights: resnet50-0676ba61.pth of torchvision.
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--workdir', metavar='DIR', help='of a trained super-resolution stage'
  )
  parser.add_argument(
    '--samples', metavar='WHAT', help='a labelled set, instead of a stage'
  )
  parser.add_argument(
    '--reference',
    metavar='WHAT',
    help='originals for the stage (default: its own held-out data)',
  )
  parser.add_argument(
    '--num',
    type=int,
    metavar='N',
    help='images: the first by file name where they are those of ImageNet, '
    'else spread over the set (default: all)',
  )
  parser.add_argument(
    '--seed', type=int, metavar='S', help="of the stage's noise (default: 0)"
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
    help='of ResNet-50 (default: fetched)',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    default=64,
    metavar='B',
    help='images at once (default: 64)',
  )
  parser.add_argument('--out', metavar='FILE', help='also write the row here')
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args):
  """Prints the row."""
  import json

  from cdm.distributed import compilation_cache
  from cdm.evaluation import result_line
  from cdm.evaluation.classification import published_resnet
  from cdm.reporting import output_files

  check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  if args.out and collectives.is_first():
    output_files.check(args.out)
  compilation_cache.enable_compilation_cache()
  given = {
    'num': args.num,
    'weights': args.classifier_weights,
    'batch_size': args.batch_size,
  }
  if args.samples is not None:
    row = published_resnet.evaluate_set(args.samples, **given)
  else:
    row = published_resnet.evaluate_stage(
      args.workdir,
      reference=args.reference,
      seed=args.seed or 0,
      level=args.level or 0.0,
      overrides=args.overrides,
      **given,
    )
  if collectives.is_first():
    print(json.dumps(row))
    if args.out:
      result_line.write(row, args.out)


def check(args):
  """Raises ValueError where options do not fit."""
  if (args.samples is None) == (args.workdir is None):
    raise ValueError(
      'cdm accuracy takes --workdir=DIR of a super-resolution stage or '
      '--samples=WHAT; give one of the two.'
    )
  if args.samples is not None:
    for option in ('reference', 'seed', 'level', 'overrides'):
      if getattr(args, option) not in (None, []):
        raise ValueError(
          f'--{option.replace("overrides", "config...")} is of a stage, and '
          f'--samples={args.samples} is a set.'
        )
  for option in ('num', 'batch_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it is at least 1.')
  if args.seed is not None and not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')
