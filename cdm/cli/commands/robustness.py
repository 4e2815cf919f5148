"""`cdm robustness` examines a stage under degraded inputs and across groups.

It also measures whether the spread of the stage's samples matches their error,
and writes everything on one page.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdm.cli import drawing_flags
from cdm.distributed import collectives, initialize
from cdm.evaluation import metrics_table

if TYPE_CHECKING:
  from cdm.evaluation.lpips_scorer import LpipsScorer

DESCRIPTION = """\
Examine a trained super-resolution stage on its held-out data. Three questions
are answered: how its scores fall when the low-res inputs are degraded, next to
those of bicubic enlargement; how they differ between groups of images, and
which group is the worst; and whether the spread of K samples of one input
matches their error. If the command was killed, the same command continues it
without drawing an image twice.

Writes into OUT: report.html (a self-contained page), report.json (its numbers),
rows.jsonl (scores per image and input), draws.jsonl (statistics of the K
samples) and pictures/ (PNGs of the images).
"""
EPILOG = """\
degradations, each at five strengths:
  noise       sigma in grey levels       brightness  shift in grey levels
  blur        sigma in low-res pixels    contrast    factor about mid-grey
  jpeg        quality                    kernel      other downsampling filters

groups: a CSV file with a line of headings. Its first column names the image, by
its index in the data or, if it is a file, by its path or name; each further
column states a group that the image belongs to. A JSON file may be given
instead, with an object that maps each image to its group or to {column: group}.

examples:
  cdm robustness --samples=runs/photos/sr@eval --num=120 --out=runs/robust
  cdm robustness --samples=runs/sr3@eval --out=runs/sr3/robust \\
      --groups=faces.csv --draws=16 --metrics=psnr,ssim,consistency,lpips
  cdm robustness --samples=runs/sr3@eval --out=runs/sr3/noise --draws=0 \\
      --degrade=noise=5,15,25,50 --degrade=jpeg
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments, and the list of metrics to its help."""
  parser.epilog = f'{EPILOG}\n{metrics_table.help_text()}'
  parser.add_argument(
    '--samples',
    required=True,
    metavar='WHAT',
    help='WORKDIR@eval: a trained stage on its held-out data; WORKDIR@train: '
    'on its training data. WORKDIR may be a method without training: '
    'nearest:CONFIG.py, bicubic:CONFIG.py or nearest_neighbour:CONFIG.py',
  )
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='folder for the page'
  )
  parser.add_argument(
    '--num',
    type=int,
    metavar='N',
    help='number of images (default: all, at most 256)',
  )
  parser.add_argument(
    '--degrade',
    action='append',
    default=[],
    metavar='NAME[=V,V]',
    help='a degradation, see below; may be repeated (default: all)',
  )
  parser.add_argument(
    '--groups',
    metavar='FILE',
    help='groups of the images, see below (default: classes of the data)',
  )
  parser.add_argument(
    '--draws',
    type=int,
    default=8,
    metavar='K',
    help='samples per clean input; 0 skips this part (default: 8)',
  )
  parser.add_argument(
    '--metrics',
    default='psnr,ssim,consistency',
    metavar='M,M,...',
    help='metrics, see below; groups are judged by the first one, a metric of '
    'pairs (default: psnr,ssim,consistency)',
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
    help='random seed of samples and degradations (default: 0)',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images per batch over all devices, instead of --batch_per_device',
  )
  drawing_flags.arguments(parser)
  parser.add_argument(
    '--lpips',
    choices=('alex', 'vgg', 'squeeze'),
    help='backbone of LPIPS (default: alex)',
  )
  parser.add_argument(
    '--lpips_weights',
    metavar='FILE,FILE',
    help='weights of the backbone and of the heads (default: downloaded)',
  )
  parser.add_argument(
    '--weights',
    metavar='FILE',
    help='weights of Inception-v3 (default: downloaded)',
  )
  parser.add_argument(
    '--few', action='store_true', help='allow FID of fewer than 2048 images'
  )
  parser.add_argument('--title', metavar='TEXT', help='title of the page')
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
  """Writes the page and prints a summary of its numbers."""
  metrics = check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  from cdm.distributed import compilation_cache, folder_lock
  from cdm.evaluation.image_selection import StageSampling
  from cdm.evaluation.robustness import study
  from cdm.reporting import output_files

  output_files.check_folder_name(args.out)
  compilation_cache.enable_compilation_cache()
  with folder_lock.hold(args.out, 'cdm robustness', flag='--out'):
    result = study.examine(
      args.samples,
      args.out,
      study.StudyPlan(
        degrade=args.degrade,
        label_file=args.groups,
        draws=args.draws,
        metrics=metrics,
        allow_few_images=args.few,
      ),
      StageSampling(
        num=args.num,
        seed=args.seed,
        level=args.level,
        batch_size=args.batch_size,
        overrides=args.overrides,
        at=drawing_flags.checkpoint(args.at, args.ema),
        batch_per_device=args.batch_per_device,
        redraws=drawing_flags.redraws(args),
      ),
      perceptual=make_lpips_scorer(args, metrics),
      network={'weights': args.weights},
      title=args.title,
      command=command_line(args),
    )
  if collectives.is_first():
    print(study.text(result))
    print(f'{args.out}/report.html')


def check(args: argparse.Namespace) -> list[str]:
  """Returns the names of the metrics, after checking all options.

  Raises:
    ValueError: options contradict each other or are out of range.
  """
  metrics = args.metrics.split(',')
  of_sets = metrics_table.of_single_number()
  known = (*metrics_table.PAIRS, *of_sets)
  for metric in metrics:
    if metric not in known:
      raise ValueError(
        f'--metrics names {metric!r}; known are {", ".join(known)}.'
      )
  if len(set(metrics)) < len(metrics):
    raise ValueError(f'--metrics={args.metrics} names a metric twice.')
  if metrics[0] in of_sets:
    raise ValueError(
      f'--metrics begins with {metrics[0]}, which has no value for a single '
      'image; groups are judged by the first metric, so begin with another.'
    )
  for option, needed in (
    ('lpips', ('lpips',)),
    ('lpips_weights', ('lpips',)),
    ('weights', of_sets),
    ('few', [m for m in of_sets if metrics_table.SETS[m].from_moments]),
  ):
    if getattr(args, option) and not set(needed) & set(metrics):
      raise ValueError(f'--{option} is for --metrics={" or ".join(needed)}.')
  if args.lpips_weights and args.lpips_weights.count(',') != 1:
    raise ValueError(
      f'--lpips_weights={args.lpips_weights}: give two files, BACKBONE.pth and '
      'HEADS.pth, separated by a comma.'
    )
  for option in ('num', 'batch_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it must be at least 1.')
  if not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')
  drawing_flags.check(args)
  drawing_flags.check_batches(args)
  return metrics


def make_lpips_scorer(
  args: argparse.Namespace, metrics: Sequence[str]
) -> LpipsScorer | None:
  """Returns the scorer of LPIPS, or None if LPIPS was not requested."""
  if 'lpips' not in metrics:
    return None
  from cdm.evaluation.lpips_scorer import LpipsScorer

  files = args.lpips_weights and args.lpips_weights.split(',')
  return LpipsScorer(args.lpips or 'alex', files)


def command_line(args: argparse.Namespace) -> str:
  """Returns the command as text that can be pasted into a shell."""
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
