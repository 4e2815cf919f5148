"""`cdm sample`: draws images from a cascade of trained stages."""

from cdm.distributed import collectives, initialize

DESCRIPTION = """\
Draw images from a cascade: every stage is restored from its own checkpoint in
WORKDIR/STAGE with its own saved config. Image n depends on (seed, n) only. A
run that was interrupted continues where it stopped.

Writes into OUT: one folder of PNGs per stage, samples.npz (arr_0 uint8 NHWC,
arr_1 labels: what the ADM evaluator reads), classes.json (names of the
labels), samples.png (each image beside the stages it came from) and
sampling.json (the recipe).
"""
EPILOG = """\
examples:
  cdm sample --config=configs/photos_cascade32.py --workdir=runs/photos \\
      --num=64 --out=runs/photos/samples
  cdm sample --config=configs/cdm_cascade256.py --workdir=runs/cdm \\
      --num=50000 --seed=0 --out=runs/cdm/samples50k --batch_size=256
  cdm sample ... --labels=cat,coffee,7 --config.stages.sr.level=0.2
"""

# Classes that are printed by name before the drawing begins.
MOST_SHOWN = 10


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--config', required=True, metavar='FILE', help='a cascade, or one base'
  )
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='holds a folder per stage of the cascade, as trained',
  )
  parser.add_argument(
    '--num', type=int, default=64, metavar='N', help='images (default: 64)'
  )
  parser.add_argument(
    '--seed', type=int, metavar='S', help="default: the config's"
  )
  parser.add_argument('--out', metavar='DIR', help='default: WORKDIR/samples')
  parser.add_argument(
    '--labels',
    metavar='L,L,...',
    help='classes to draw in turn, each a name or an index (default: all)',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    default=64,
    metavar='B',
    help='images drawn at once (default: 64); does not change the images',
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args):
  """Draws the images that are not there yet, then assembles them."""
  import pathlib

  from cdm.config import loader
  from cdm.data import class_names
  from cdm.distributed import compilation_cache
  from cdm.sampling import generate, restore

  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  compilation_cache.enable_compilation_cache()

  loaded = loader.load(args.config, args.overrides)
  seed = loaded.seed if args.seed is None else args.seed
  if not 0 <= seed < 2**32:
    raise ValueError(f'--seed={seed}: seeds are 0 to 2^32 - 1.')
  workdir = pathlib.Path(args.workdir)
  stages, notes = restore.restored_cascade(loaded, workdir, args.overrides)
  out = pathlib.Path(args.out) if args.out else workdir / 'samples'
  names = class_names.read(workdir / notes[0]['folder'])
  labels = parse_labels(args.labels, stages, names)
  if args.num < 1 or args.batch_size < 1:
    raise ValueError(
      f'--num={args.num} --batch_size={args.batch_size}: both must be at '
      'least 1.'
    )
  if labels and collectives.is_first():
    print_labels(labels, names)
  generate.draw_to(
    out,
    stages,
    recipe={
      'config': loaded.name,
      'seed': seed,
      'labels': labels,
      'stages': notes,
    },
    num=args.num,
    batch_size=args.batch_size,
    class_names=names,
  )


def parse_labels(text, stages, names):
  """Returns the labels to draw in turn, or None where no stage takes one.

  Raises:
    ValueError: labels for stages without classes, or classes that are not
      there.
  """
  counts = [s.num_classes for s in stages if s.num_classes is not None]
  if not counts:
    if text:
      raise ValueError(
        f'--labels={text} was given, but no stage of this cascade takes a '
        'label; leave it out.'
      )
    return None
  if text is None:
    return list(range(counts[0]))
  from cdm.data import class_names

  try:
    return class_names.find_labels(text, names, counts[0])
  except ValueError as error:
    raise ValueError(f'--labels={text}: {error}') from None


def print_labels(labels, names):
  """Prints which classes are drawn, by name; a long list is cut short."""
  from cdm.data import class_names

  shown = [class_names.describe(label, names) for label in labels[:MOST_SHOWN]]
  if len(labels) > MOST_SHOWN:
    shown.append(f'and {len(labels) - MOST_SHOWN} more')
  print(f'classes in turn: {", ".join(shown)}')
