"""`cdm evaluate`: numbers of images against references, as one JSON row."""

from cdm.cli import evaluation_flags
from cdm.cli.evaluation_flags import SETS
from cdm.distributed import collectives, initialize
from cdm.evaluation import set_name

DESCRIPTION = """\
Judge images. Of sets: FID, sFID, Inception Score, KID, precision and recall,
by the Inception-v3 of 2015 that FID is defined by. Of pairs: PSNR, SSIM,
MS-SSIM, LPIPS and, with --lowres, SR3's consistency. Every number comes with
its convention. Prints one JSON row; --out also writes it, and a line of
Markdown beside it. A killed evaluation of sets, or of what is drawn, continues.
"""
EPILOG = """\
WHAT is
  FOLDER, FILE.npz    images (pairs go by name); as a reference also statistics
  CONFIG.py:train     the data of a config, through its own preprocessing
  CONFIG.py:eval
  CONFIG.py@WORKDIR   a trained cascade, sampled as it is judged
  WORKDIR@eval        a trained super-resolution stage on true low-res images
  WORKDIR@train       of its data, paired with the originals: metrics of pairs
                      take no --reference. --config.level=L: augmentation level

metrics:
  of sets   fid sfid is kid pr
  of pairs  psnr psnr_y ssim ssim_gaussian ms_ssim consistency lpips

examples:
  cdm evaluate --samples=OUT/upscaled --reference=OUT/original \\
      --lowres=OUT/lowres --out=OUT/row.json
  cdm evaluate --samples=runs/sr3@eval --metrics=psnr,ssim,consistency
  cdm evaluate --make_reference --reference=configs/cdm_imagenet64.py:train \\
      --out=imagenet64_train.npz
  cdm evaluate --samples=configs/cdm_cascade64.py@runs/cdm --num=50000 \\
      --reference=imagenet64_train.npz --metrics=fid,is --out=row.json

weights: fetched once (96 MB) into the user's cache; without a network give
--weights: pt_inception-2015-12-05-6726825d.pth, or the frozen graph
classify_image_graph_def.pb (or its .tgz).
"""

PAIRS = ('psnr', 'psnr_y', 'ssim', 'ssim_gaussian', 'ms_ssim', 'consistency')
# What statistics of a reference do not depend on.
UNUSED = (
  *('lowres', 'downsample', 'few', 'kid_size', 'lpips', 'lpips_weights'),
  *('overrides',),
)
LPIPS = 'lpips'  # of pairs too, where it is asked for: it needs a network


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument('--samples', metavar='WHAT', help='images to judge')
  parser.add_argument(
    '--reference', metavar='WHAT', help='what they should be, or be like'
  )
  parser.add_argument(
    '--metrics',
    metavar='M,M,...',
    help='see below (default: all of pairs but lpips)',
  )
  parser.add_argument(
    '--lowres',
    metavar='WHAT',
    help='low-res inputs; adds consistency and the scores of bicubic',
  )
  parser.add_argument(
    '--downsample',
    metavar='FILTER',
    help='filter that made the low-res inputs (default: bicubic)',
  )
  parser.add_argument(
    *('--make_reference', '--make-reference'),
    action='store_true',
    help='write statistics of --reference to --out',
  )
  evaluation_flags.arguments(parser)
  parser.add_argument(
    '--lpips',
    choices=('alex', 'vgg', 'squeeze'),
    help='backbone of --metrics=lpips (default: alex)',
  )
  parser.add_argument(
    '--lpips_weights',
    metavar='FILE,FILE',
    help='backbone of torchvision and heads of LPIPS (default: fetched)',
  )
  parser.add_argument(
    '--out', metavar='FILE', help='also write the row, or the statistics, here'
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args):
  """Prints the row."""
  import json

  metrics = check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  if args.make_reference:
    make_reference(args)
    return
  if args.out and collectives.is_first():
    from cdm.reporting import output_files

    output_files.check(args.out)
  of_sets = [m for m in metrics if m in SETS]
  of_pairs = [m for m in metrics if m not in SETS]
  row = {}
  if of_pairs and drawn_pairs(args.samples):
    row = judge_drawn(args, of_sets, of_pairs)
  else:
    if of_sets:
      row |= judge(args, of_sets)
    if of_pairs:
      row = merged(row, pairs_of(args, of_pairs))
  text = json.dumps(row, allow_nan=False)
  print(text, flush=True)
  for warning in row.get('warnings', ()):
    tell(warning)
  if args.out and collectives.is_first():
    from cdm.evaluation import result_line

    result_line.write(row, args.out)


def check(args):
  """-> names of the metrics. Raises ValueError where options do not fit."""
  if args.make_reference:
    if not args.reference or not args.out or args.samples or args.metrics:
      raise ValueError(
        '--make_reference takes --reference=WHAT and --out=FILE.npz, and no '
        '--samples or --metrics.'
      )
    if not args.out.endswith('.npz'):
      raise ValueError(f'--out={args.out}: statistics are an .npz file.')
    for option in UNUSED:
      if getattr(args, option):
        raise ValueError(f'--{option} means nothing to --make_reference.')
    evaluation_flags.check(args, ('fid', 'sfid'))
    return []
  if args.out and args.out.endswith('.md'):
    raise ValueError(
      f'--out={args.out}: the row is JSON, and its line of Markdown '
      'goes beside it; give FILE.json.'
    )
  if not args.samples:
    raise ValueError('--samples=WHAT is missing: the images to judge.')
  metrics = args.metrics.split(',') if args.metrics else list(PAIRS)
  for metric in metrics:
    known = (*SETS, *PAIRS, LPIPS)
    if metric not in known:
      raise ValueError(
        f'--metrics names {metric!r}; known are {", ".join(known)}.'
      )
  of_sets = [m for m in metrics if m in SETS]
  of_pairs = [m for m in metrics if m not in SETS]
  alone = drawn_pairs(args.samples) or not of_pairs
  if not args.reference and not (alone and set(of_sets) <= {'is'}):
    raise ValueError('--reference=WHAT is missing: what they should be like.')
  if drawn_pairs(args.samples):
    for option in ('lowres', 'downsample'):
      if getattr(args, option):
        raise ValueError(
          f'--{option} means nothing to {args.samples}: its low-res images are '
          "made as in the stage's training."
        )
    if args.reference and not of_sets:
      raise ValueError(
        f'--reference={args.reference} is for metrics of sets; pairs of '
        f'{args.samples} are compared with the originals of its own data.'
      )
  elif of_pairs and set_name.asks_to_draw(args.samples):
    raise ValueError(
      f'{args.samples} has no originals to be paired with; of pairs are '
      'WORKDIR@eval, folders and .npz files.'
    )
  elif args.metrics and 'consistency' in metrics and not args.lowres:
    raise ValueError('consistency needs --lowres=WHAT, the low-res inputs.')
  of = {
    'metrics of sets': (
      *('num', 'seed', 'few', 'kid_size', 'weights', 'batch_size'),
    ),
    'metrics of pairs': ('lowres', 'downsample'),
  }
  for_drawing = ('num', 'seed', 'batch_size')
  for names, kind in (
    (of_sets, 'metrics of sets'),
    (of_pairs, 'metrics of pairs'),
  ):
    for option in of[kind] if not names else ():
      if option in for_drawing and drawn_pairs(args.samples):
        continue
      if getattr(args, option):
        raise ValueError(f'--{option} is for {kind}, and none was asked for.')
  for option in ('lpips', 'lpips_weights') if LPIPS not in metrics else ():
    if getattr(args, option):
      raise ValueError(f'--{option} is for --metrics=lpips.')
  if args.lpips_weights and args.lpips_weights.count(',') != 1:
    raise ValueError(
      f'--lpips_weights={args.lpips_weights}: give two files, BACKBONE.pth and '
      'HEADS.pth, with a comma between.'
    )
  evaluation_flags.check(args, metrics)
  sets = f'{args.samples}{args.reference}'
  if args.seed is not None and not set_name.asks_to_draw(sets):
    raise ValueError(
      f'--seed={args.seed} is of drawn images, and none are drawn: neither '
      '--samples nor --reference is CONFIG.py@WORKDIR or WORKDIR@eval.'
    )
  if args.overrides and not set_name.asks_to_draw(args.samples):
    raise ValueError(
      'Config overrides belong to --samples=CONFIG.py@WORKDIR or WORKDIR@eval.'
    )
  return metrics


def judge(args, metrics):
  """-> the row of metrics of sets."""
  from cdm.distributed import compilation_cache
  from cdm.evaluation import compare_sets

  compilation_cache.enable_compilation_cache()
  return compare_sets.judge(
    args.samples,
    args.reference,
    metrics=metrics,
    overrides=args.overrides,
    **evaluation_flags.network(args),
    **evaluation_flags.comparison(args),
  )


def drawn_pairs(samples):
  """Whether WHAT is drawn from originals that it can be paired with."""
  return set_name.parse(samples).kind == 'stage'


def judge_drawn(args, of_sets, of_pairs):
  """-> the row of a stage's images, drawn once for all metrics."""
  from cdm.distributed import compilation_cache
  from cdm.evaluation import compare_sets, paired_samples

  compilation_cache.enable_compilation_cache()
  scores = paired_samples.Scores(perceptual=perceptual_of(args, of_pairs))
  source = paired_samples.resolve_stage(
    args.samples,
    scores,
    num=args.num,
    seed=args.seed,
    overrides=args.overrides,
  )
  row = {'samples': args.samples}
  if of_sets:
    row = compare_sets.judge(
      args.samples,
      args.reference,
      metrics=of_sets,
      source=source,
      **evaluation_flags.network(args),
      **evaluation_flags.comparison(args),
    )
  size = {'batch_size': args.batch_size} if args.batch_size else {}
  paired_samples.draw_missing(source, scores, **size)
  row = merged(row, wanted(scores.row(), of_pairs))
  told = {
    'samples_recipe': source.recipe,
    'paper': source.paper,
    'versions': compare_sets.versions(),
  }
  return told | row


def make_reference(args):
  """Writes statistics."""
  from cdm.distributed import compilation_cache
  from cdm.evaluation import compare_sets

  compilation_cache.enable_compilation_cache()
  made = compare_sets.make_reference(
    args.reference,
    args.out,
    num=args.num,
    seed=args.seed,
    **evaluation_flags.network(args),
  )
  print(f'Statistics of {made.count:,} images in {args.out}.')


def pairs_of(args, metrics):
  """-> the row of pairs, with the metrics that were asked for."""
  from cdm.evaluation import paired_metrics

  row = paired_metrics.evaluate_paths(
    args.samples,
    args.reference,
    lowres=args.lowres,
    downsample=args.downsample or 'bicubic',
    perceptual=perceptual_of(args, metrics),
  )
  return wanted(row, metrics)


def perceptual_of(args, metrics):
  """-> lpips_scorer.LpipsScorer where LPIPS is asked for, else None."""
  if LPIPS not in metrics:
    return None
  from cdm.evaluation.lpips_scorer import LpipsScorer

  files = args.lpips_weights and args.lpips_weights.split(',')
  return LpipsScorer(args.lpips or 'alex', files)


def wanted(row, metrics):
  """-> the row of pairs without the metrics that were not asked for."""
  unwanted = set(PAIRS) - set(metrics)
  parts = (row, row['conventions'], row['intervals'], row.get('bicubic', {}))
  for part in parts:
    for name in unwanted:
      part.pop(name, None)
      part.pop(f'{name}_1e-5', None)
  return row


def merged(first, second):
  """-> both rows; what both have is the same but for conventions."""
  conventions = first.get('conventions', {}) | second['conventions']
  return second | first | {'conventions': conventions}


def tell(warning):
  """Says loudly that two numbers do not compare."""
  import sys

  if collectives.is_first():
    print(f'cdm: NOT COMPARABLE: {warning}.', file=sys.stderr)
