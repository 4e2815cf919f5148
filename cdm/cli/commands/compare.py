"""`cdm compare` compares methods of super-resolution on the same images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cdm.cli import drawing_flags
from cdm.distributed import initialize

if TYPE_CHECKING:
  from cdm.evaluation.comparison.compare import Options

DESCRIPTION = """\
Compare methods of super-resolution on the same held-out images: PSNR, SSIM,
consistency, LPIPS and a Fréchet distance where the weights of their networks
are given, time per image, parameters, and what training took.

Writes into OUT: comparison.md, the table, with the numbers of a paper beside
ours where the papers have the task; comparison.json, the same with all that the
numbers depend on; comparison.html, one self-contained page with rows of images;
and images/METHOD, what each method made. If the command was interrupted, the
same command continues it.
"""
EPILOG = """\
--methods=M,M,... are in the order of the table:
  bicubic, nearest    interpolation
  nearest-neighbour   the training image whose low-res version is nearest
  NAME                the trained stage in RUNS/NAME, of --workdir=RUNS
  NAME=DIR            the trained stage in DIR, or images in DIR that another
                      program has made of the same low-res images, in order
The held-out images are those of the first trained stage, or of --config. Of a
regression the best checkpoint is taken, of other methods the last.

examples:
  cdm compare --methods=bicubic,regression,sr3 --workdir=runs --out=OUT
  cdm compare --methods=nearest,bicubic,sr3=runs/sr3,theirs=THEIR/images \\
      --weights=resnet56.th --num=100 --out=OUT
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--methods',
    required=True,
    metavar='M,M,...',
    help='methods, see below; the consistency of the last one chooses the '
    'best and worst images of the page',
  )
  parser.add_argument(
    '--workdir',
    metavar='RUNS',
    help='folder with the work directory of each trained method',
  )
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='folder for the results'
  )
  parser.add_argument(
    '--config',
    metavar='FILE',
    help='config whose held-out images are compared (default: that of the '
    'first trained method)',
  )
  parser.add_argument(
    *('--low_res', '--low-res'),
    type=int,
    metavar='L',
    help='side of the low-res images in pixels, to be sure of the task',
  )
  parser.add_argument(
    '--size',
    type=int,
    metavar='S',
    help='side of the results in pixels, to be sure of the task',
  )
  parser.add_argument(
    '--num',
    type=int,
    metavar='N',
    help='held-out images, spread over all (default: all)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, metavar='S', help='random seed (default: 0)'
  )
  parser.add_argument(
    '--shown',
    type=int,
    default=6,
    metavar='N',
    help='first images on the page (default: 6)',
  )
  parser.add_argument(
    '--extreme',
    type=int,
    default=2,
    metavar='N',
    help='best and worst images on the page (default: 2 of each)',
  )
  parser.add_argument(
    '--draws',
    type=int,
    default=4,
    metavar='K',
    help='samples of every image on the page, by the methods that draw '
    '(default: 4)',
  )
  parser.add_argument(
    '--weights',
    metavar='FILE',
    help='weights of a network, for the Fréchet distance of its features: '
    "Inception-v3, or CIFAR-10's resnet20.th, ... (default: no distance)",
  )
  parser.add_argument(
    '--lpips',
    choices=('alex', 'vgg', 'squeeze'),
    help='backbone of LPIPS (default: no LPIPS)',
  )
  parser.add_argument(
    '--lpips_weights',
    metavar='FILE,FILE',
    help="torchvision's backbone and LPIPS's heads (default: downloaded)",
  )
  parser.add_argument(
    '--paper',
    metavar='TABLE',
    help='table of a paper whose numbers stand beside ours, such as sr3_faces, '
    'or none (default: that of the task, if the papers have it)',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images that a method super-resolves at once, over all devices '
    '(default: chosen from their memory)',
  )
  parser.add_argument(
    '--at',
    metavar='STEP',
    help='checkpoint of every stage: a step, or best (default: see below)',
  )
  drawing_flags.average_argument(parser)
  drawing_flags.sampler_arguments(parser)
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='replace what other settings wrote into OUT',
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
  """Compares the methods and prints the table."""
  import pathlib

  from cdm.config import loader
  from cdm.distributed import compilation_cache
  from cdm.evaluation.comparison import (
    compare,
    named_methods,
    opened_methods,
    paper_numbers,
  )
  from cdm.reporting import output_files

  check(args)
  runs = pathlib.Path(args.workdir) if args.workdir else None
  out = pathlib.Path(args.out)
  output_files.check_folder_name(out)
  methods = named_methods.parse(args.methods, runs)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  compilation_cache.enable_compilation_cache()
  given = None
  if args.config is not None:
    given = loader.load(args.config, args.overrides)
  task = opened_methods.task_of(
    methods, given, image_size=args.size, lowres_size=args.low_res
  )
  compare.compare(
    out,
    methods,
    task,
    options(args)._replace(published=paper_numbers.find(task, args.paper)),
  )


def options(args: argparse.Namespace) -> Options:
  """Returns what the flags ask for."""
  from cdm.evaluation.comparison import compare, rows

  perceptual = None
  if args.lpips or args.lpips_weights:
    from cdm.evaluation.lpips_scorer import LpipsScorer

    given = args.lpips_weights
    perceptual = LpipsScorer(
      args.lpips or 'alex', given.split(',') if given else None
    )
  return compare.Options(
    count=args.num,
    seed=args.seed,
    at=drawing_flags.checkpoint(args.at, args.ema),
    batch_size=args.batch_size,
    first=args.shown,
    extreme=args.extreme,
    draws=args.draws,
    features=rows.Features(args.weights),
    perceptual=perceptual,
    overwrite=args.overwrite,
    redraws=drawing_flags.redraws(args),
  )


def check(args: argparse.Namespace) -> None:
  """Raises ValueError if a flag is out of range or has no use."""
  for option, least in (
    *(('num', 1), ('batch_size', 1), ('low_res', 1), ('size', 1)),
    *(('shown', 0), ('extreme', 0), ('draws', 1)),
  ):
    value = getattr(args, option)
    if value is not None and value < least:
      raise ValueError(f'--{option}={value}: it must be at least {least}.')
  if args.shown + args.extreme == 0:
    raise ValueError(
      '--shown=0 and --extreme=0 leave the page without an image; give one of '
      'them.'
    )
  if not 0 <= args.seed <= 2**32 - args.draws:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - --draws.')
  if args.overrides and args.config is None:
    raise ValueError(
      f'--config.{args.overrides[0][0]} changes the config of --config=FILE, '
      'which was not given.'
    )
  drawing_flags.checkpoint(args.at, args.ema)
  drawing_flags.redraws(args)
