"""`cdm cas`: the classification accuracy score, from samples to top-1."""

from cdm.distributed import collectives, initialize

DESCRIPTION = """\
Train a classifier (ResNet-50) on labelled samples alone, test it on real images
and print its top-1 and top-5 accuracy: the classification accuracy score. The
training is that of `cdm train`: it continues bit for bit, and so do the drawing
before it and the test after it.

Writes into WORKDIR what `cdm train` writes, samples/ (where they are drawn),
cas.json (what the score is of), row.json and row.md (the score, and all that it
depends on).
"""
EPILOG = """\
WHAT is
  FOLDER              a sub-folder per class; what `cdm sample` or `cdm
                      prepare` wrote
  FILE.npz            arr_0 pictures, arr_1 labels
  CONFIG.py:train     the data of a config ("real images" of the paper's table),
  CONFIG.py:eval      cropped and resized as --config says
  CONFIG.py@DIR       a trained cascade; --num labelled samples are drawn first

examples:
  cdm cas --config=configs/cas_imagenet128.py --workdir=runs/cas_real
  cdm cas --config=configs/cas_imagenet128.py --workdir=runs/cas_cdm \\
      --samples=configs/cdm_cascade128.py@runs/cdm --num=1281167
  cdm cas --config=configs/cas_photos.py --workdir=runs/cas_photos \\
      --samples=runs/photos/samples

exit codes: those of `cdm train`.
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--config', required=True, metavar='FILE', help='of a classifier'
  )
  parser.add_argument(
    '--workdir', required=True, metavar='DIR', help='of this score'
  )
  parser.add_argument(
    '--samples',
    metavar='WHAT',
    help="to train on (default: the config's train_data)",
  )
  parser.add_argument(
    '--test',
    metavar='WHAT',
    help="to test on (default: the config's eval_data)",
  )
  parser.add_argument(
    '--num', type=int, metavar='N', help='samples to draw of CONFIG.py@DIR'
  )
  parser.add_argument(
    '--seed', type=int, metavar='S', help="of drawn samples; the config's"
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    default=64,
    metavar='B',
    help='images drawn, and tested, at once (default: 64)',
  )
  parser.add_argument(
    '--out', metavar='FILE', help='of the row (default: WORKDIR/row.json)'
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args):
  """Scores. Returns the exit code."""
  import pathlib

  from cdm.config import loader
  from cdm.distributed import compilation_cache
  from cdm.evaluation import result_line
  from cdm.evaluation.classification import cas
  from cdm.reporting import output_files

  check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  if args.out and collectives.is_first():
    output_files.check(args.out)
  compilation_cache.enable_compilation_cache()
  workdir = pathlib.Path(args.workdir)
  code, row = cas.score(
    loader.load(args.config, args.overrides),
    workdir,
    samples=args.samples,
    test=args.test,
    num=args.num,
    seed=args.seed,
    batch_size=args.batch_size,
  )
  if row is None:
    return code
  if collectives.is_first():
    path = result_line.write(row, args.out or workdir / 'row.json')
    print(f'{result_line.line(row)}\n{path}')
  return code


def check(args):
  """Raises ValueError where options do not fit."""
  drawn = args.samples is not None and '.py@' in args.samples
  for option in ('num', 'seed'):
    if getattr(args, option) is not None and not drawn:
      raise ValueError(
        f'--{option} is of drawn samples, and --samples={args.samples} is not '
        'CONFIG.py@DIR.'
      )
  for option in ('num', 'batch_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it is at least 1.')
  if args.seed is not None and not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')
