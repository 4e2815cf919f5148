"""`cdm robustness`: how a stage bears bad inputs, whom it serves worse, and
whether its spread can be trusted, on one page."""

from cdm.distributed import collectives, initialize

DESCRIPTION = """\
Examine a trained super-resolution stage on its held-out data: its scores over
degraded low-res inputs beside those of bicubic, group by group with the worst
one named, and whether k samples of one input spread as far as they are wrong.
A killed run continues; what is there is not drawn again.

Writes into OUT: report.html (one page, nothing outside it), report.json (its
numbers), rows.jsonl (scores per image and input), draws.jsonl, pictures/.
"""
EPILOG = """\
degradations, each at five strengths:
  noise       sigma in grey levels       brightness  shift in grey levels
  blur        sigma in low-res pixels    contrast    factor about mid-grey
  jpeg        quality                    kernel      other downsampling filters

groups: a CSV whose first column names the image (by its number in the data, or
its file) and whose others say what it belongs to, under a line of headings; or
a JSON object from image to group, or to {column: group}.

examples:
  cdm robustness --samples=runs/photos/sr@eval --num=120 --out=runs/robust
  cdm robustness --samples=runs/sr3@eval --out=runs/sr3/robust \\
      --groups=faces.csv --draws=16 --metrics=psnr,ssim,consistency,lpips
  cdm robustness --samples=runs/sr3@eval --out=runs/sr3/noise --draws=0 \\
      --degrade=noise=5,15,25,50 --degrade=jpeg
"""
METRICS = (
  *('psnr', 'psnr_y', 'ssim', 'ssim_gaussian', 'ms_ssim', 'consistency'),
  'lpips',
)
OF_SETS = ('fid', 'kid')


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--samples',
    required=True,
    metavar='WHAT',
    help='WORKDIR@eval, a trained stage on its held-out data, or @train',
  )
  parser.add_argument('--out', required=True, metavar='DIR', help='of the page')
  parser.add_argument(
    '--num', type=int, metavar='N', help='images (default: all, at most 256)'
  )
  parser.add_argument(
    '--degrade',
    action='append',
    default=[],
    metavar='NAME[=V,V]',
    help='see below; may be given again (default: all)',
  )
  parser.add_argument(
    '--groups', metavar='FILE', help='label file (default: classes of the data)'
  )
  parser.add_argument(
    '--draws',
    type=int,
    default=8,
    metavar='K',
    help='samples of each clean input; 0 for none (default: 8)',
  )
  parser.add_argument(
    '--metrics',
    default='psnr,ssim,consistency',
    metavar='M,M,...',
    help='the first one decides; also psnr_y ssim_gaussian ms_ssim lpips and, '
    'of sets, fid kid (default: psnr,ssim,consistency)',
  )
  parser.add_argument(
    '--level',
    type=float,
    default=0.0,
    metavar='L',
    help='augmentation level in [0, 1] of the low-res input (default: 0)',
  )
  parser.add_argument(
    '--seed',
    type=int,
    default=0,
    metavar='S',
    help='of samples and degradations (default: 0)',
  )
  parser.add_argument(
    '--batch_size', type=int, default=32, metavar='B', help='default: 32'
  )
  parser.add_argument(
    '--lpips', choices=('alex', 'vgg', 'squeeze'), help='default: alex'
  )
  parser.add_argument(
    '--lpips_weights', metavar='FILE,FILE', help='default: fetched'
  )
  parser.add_argument(
    '--weights', metavar='FILE', help='of Inception-v3 (default: fetched)'
  )
  parser.add_argument(
    '--few', action='store_true', help='FID of fewer than 2048 images'
  )
  parser.add_argument('--title', metavar='TEXT', help='of the page')
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args):
  """Writes the page and prints its numbers in short."""
  metrics = check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  from cdm.distributed import compilation_cache
  from cdm.evaluation.robustness import study

  compilation_cache.enable_compilation_cache()
  result = study.examine(
    args.samples,
    args.out,
    degrade=args.degrade,
    label_file=args.groups,
    draws=args.draws,
    metrics=metrics,
    num=args.num,
    seed=args.seed,
    level=args.level,
    batch_size=args.batch_size,
    overrides=args.overrides,
    perceptual=perceptual(args, metrics),
    few=args.few,
    network={'weights': args.weights},
    title=args.title,
    command=command_line(args),
  )
  if collectives.is_first():
    print(study.text(result))
    print(f'{args.out}/report.html')


def check(args):
  """-> names of the metrics. Raises ValueError where options do not fit."""
  metrics = args.metrics.split(',')
  for metric in metrics:
    if metric not in (*METRICS, *OF_SETS):
      raise ValueError(
        f'--metrics names {metric!r}; known are '
        f'{", ".join((*METRICS, *OF_SETS))}.'
      )
  if len(set(metrics)) < len(metrics):
    raise ValueError(f'--metrics={args.metrics} names one twice.')
  if metrics[0] in OF_SETS:
    raise ValueError(
      f'--metrics begins with {metrics[0]}, which has no value for a single '
      'image; begin with one that has, as groups are judged by it.'
    )
  for option, needed in (
    ('lpips', ('lpips',)),
    ('lpips_weights', ('lpips',)),
    ('weights', OF_SETS),
    ('few', ('fid',)),
  ):
    if getattr(args, option) and not set(needed) & set(metrics):
      raise ValueError(f'--{option} is for --metrics={" or ".join(needed)}.')
  if args.lpips_weights and args.lpips_weights.count(',') != 1:
    raise ValueError(
      f'--lpips_weights={args.lpips_weights}: give two files, BACKBONE.pth and '
      'HEADS.pth, with a comma between.'
    )
  for option in ('num', 'batch_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it is at least 1.')
  if not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')
  return metrics


def perceptual(args, metrics):
  """-> LPIPS, if it was asked for."""
  if 'lpips' not in metrics:
    return None
  from cdm.evaluation.lpips_scorer import LpipsScorer

  files = args.lpips_weights and args.lpips_weights.split(',')
  return LpipsScorer(args.lpips or 'alex', files)


def command_line(args):
  """-> what was typed, to be pasted again."""
  import shlex

  words = ['cdm', 'robustness']
  for name, value in vars(args).items():
    if name == 'overrides':
      words += [f'--config.{key}={text}' for key, text in value]
    elif name == 'degrade':
      words += [f'--degrade={word}' for word in value]
    elif value is True:
      words.append(f'--{name}')
    elif name != 'command' and value not in (None, False):
      words.append(f'--{name}={value}')
  first, *rest = (shlex.quote(word) for word in words[1:])
  return ' \\\n    '.join([f'cdm {first}', *rest])
