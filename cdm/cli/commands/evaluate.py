"""`cdm evaluate` computes metrics of images: FID of sets, PSNR of pairs etc."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cdm.cli import drawing_flags, evaluation_flags
from cdm.distributed import collectives, initialize
from cdm.evaluation import metrics_table, set_name

if TYPE_CHECKING:
  from cdm.evaluation.lpips_scorer import LpipsScorer

DESCRIPTION = """\
Judge images by two kinds of metrics. Metrics of sets take all images together,
most of them against a reference set; all are computed with the Inception-v3 of
2015 that defines FID. Metrics of pairs compare each image with its own
reference. With --lowres, bicubic enlargement is scored too: every mean of a
metric is over the images where it is finite for both, and the row counts them.

Prints one JSON row, which states the convention of every number; --out also
writes it to a file, with a line of Markdown beside it. If the command was
killed, the same command continues metrics of sets, and metrics of images that
it draws itself.
"""
EPILOG = """\
WHAT names a set of images:
  FOLDER, FILE.npz    images, paired by name; as a reference, FILE.npz may hold
                      statistics (see --make_reference)
  CONFIG.py:train     the training or evaluation data of a config, with the
  CONFIG.py:eval      preprocessing of that config
  CONFIG.py@WORKDIR   samples of a trained cascade, drawn during the evaluation
  WORKDIR@eval        outputs of a trained super-resolution stage for low-res
  WORKDIR@train       versions of its evaluation or training images. They are
                      paired with the originals, so that metrics of pairs take
                      no --reference. --config.level=L sets the augmentation
                      level. WORKDIR may be METHOD:CONFIG.py, a method without
                      training: nearest, bicubic or nearest_neighbour.
  --config.KEY=VALUE changes the config that --samples names or was saved with,
  --reference_config.KEY=VALUE that of --reference; with --make_reference both
  are the same.

examples:
  cdm evaluate --samples=OUT/upscaled --reference=OUT/original \\
      --lowres=OUT/lowres --out=OUT/row.json
  cdm evaluate --samples=runs/sr3@eval --metrics=psnr,ssim,consistency
  cdm evaluate --make_reference --reference=configs/cdm_imagenet64.py:train \\
      --reference_config.train_data.data_dir=/data --out=imagenet64_train.npz
  cdm evaluate --samples=configs/cdm_cascade64.py@runs/cdm --num=50000 \\
      --reference=imagenet64_train.npz --metrics=fid,is --out=row.json

weights: they are downloaded once (96 MB) into the user's cache. Without a
network connection give pt_inception-2015-12-05-6726825d.pth, or the frozen
graph classify_image_graph_def.pb (or its .tgz), as --weights.
"""

# Options that --make_reference refuses, because statistics do not depend on
# them.
UNUSED = (
  *('lowres', 'downsample', 'few', 'kid_size', 'lpips', 'lpips_weights'),
)
# This metric of pairs is not a default one, because it needs a network.
LPIPS = 'lpips'


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments, and the list of metrics to its help."""
  parser.epilog = f'{EPILOG}\n{metrics_table.help_text()}'
  parser.add_argument('--samples', metavar='WHAT', help='images to judge')
  parser.add_argument(
    '--reference', metavar='WHAT', help='images to compare them with'
  )
  parser.add_argument(
    '--metrics',
    metavar='M,M,...',
    help='see below (default: all metrics of pairs except lpips)',
  )
  parser.add_argument(
    '--lowres',
    metavar='WHAT',
    help='low-res inputs; adds consistency, and scores of bicubic enlargement',
  )
  parser.add_argument(
    '--downsample',
    metavar='FILTER',
    help='filter that made the low-res inputs (default: bicubic)',
  )
  parser.add_argument(
    *('--make_reference', '--make-reference'),
    action='store_true',
    help='only compute statistics of --reference and write them to --out',
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
    help="torchvision's backbone and LPIPS's heads (default: downloaded)",
  )
  parser.add_argument(
    '--max_value',
    type=float,
    metavar='V',
    help='value of white in image files of 16 or more bits that do not state '
    'it, for example 4095 for 12 bits (default: 65535)',
  )
  parser.add_argument(
    '--out',
    metavar='FILE',
    help='also write the row to this file; with --make_reference, the '
    'statistics',
  )
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='replace files of earlier results that have the name of --out',
  )
  initialize.arguments(parser)


def run(args: argparse.Namespace) -> None:
  """Computes the metrics and prints them as a JSON row."""
  import json

  metrics = check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  if args.make_reference:
    make_reference(args)
    return
  if args.out and collectives.is_first():
    from cdm.evaluation import result_line

    result_line.check(args.out, overwrite=args.overwrite)
  of_sets = [m for m in metrics if m in metrics_table.SETS]
  of_pairs = [m for m in metrics if m not in metrics_table.SETS]
  row = {}
  if of_pairs and is_stage(args.samples):
    row = evaluate_drawn(args, of_sets, of_pairs)
  else:
    if of_sets:
      row |= evaluate_sets(args, of_sets)
    if of_pairs:
      row = merge_rows(row, evaluate_pairs(args, of_pairs))
  text = json.dumps(row, allow_nan=False)
  print(text, flush=True)
  for warning in row.get('warnings', ()):
    print_warning(warning)
  if args.out and collectives.is_first():
    from cdm.evaluation import result_line

    result_line.write(row, args.out)


def check(args: argparse.Namespace) -> list[str]:
  """Returns the names of the metrics, after checking all options.

  Raises:
    ValueError: options contradict each other or are out of range.
  """
  if args.make_reference:
    if not args.reference or not args.out or args.samples or args.metrics:
      raise ValueError(
        '--make_reference takes --reference=WHAT and --out=FILE.npz, and no '
        '--samples or --metrics.'
      )
    if not args.out.endswith('.npz'):
      raise ValueError(
        f'--out={args.out}: statistics are written as .npz; give FILE.npz.'
      )
    for option in UNUSED:
      if getattr(args, option):
        raise ValueError(f'--{option} has no effect on --make_reference.')
    # There is one config, so that both names of its keys mean the same.
    args.reference_overrides = [*args.overrides, *args.reference_overrides]
    evaluation_flags.check(args, ('fid', 'sfid'))
    drawing_flags.check(args, draws=set_name.asks_to_draw(args.reference))
    return []
  if not args.samples:
    raise ValueError('--samples=WHAT is missing; give the images to judge.')
  sets = metrics_table.SETS
  metrics = (
    args.metrics.split(',') if args.metrics else metrics_table.by_default()
  )
  for metric in metrics:
    known = (*sets, *metrics_table.PAIRS)
    if metric not in known:
      raise ValueError(
        f'--metrics names {metric!r}; known are {", ".join(known)}.'
      )
  of_sets = [m for m in metrics if m in sets]
  of_pairs = [m for m in metrics if m not in sets]
  alone = is_stage(args.samples) or not of_pairs
  if not args.reference and not (alone and all(sets[m].alone for m in of_sets)):
    raise ValueError(
      '--reference=WHAT is missing; give the images to compare with.'
    )
  if is_stage(args.samples):
    for option in ('lowres', 'downsample'):
      if getattr(args, option):
        raise ValueError(
          f'--{option} has no effect on {args.samples}: its low-res images are '
          "made as in the stage's training."
        )
    if args.reference and not of_sets:
      raise ValueError(
        f'--reference={args.reference} is for metrics of sets; pairs of '
        f'{args.samples} are compared with the originals of its own data.'
      )
  elif of_pairs and set_name.asks_to_draw(args.samples):
    raise ValueError(
      f'{args.samples} has no originals to be paired with; metrics of pairs '
      'take WORKDIR@eval, folders and .npz files.'
    )
  elif args.metrics and not args.lowres:
    for metric in of_pairs:
      if metrics_table.PAIRS[metric].needs == 'lowres':
        raise ValueError(f'{metric} needs --lowres=WHAT, the low-res inputs.')
  options_of = {
    'metrics of sets': (
      *('num', 'seed', 'few', 'kid_size', 'weights', 'batch_size'),
    ),
    'metrics of pairs': ('lowres', 'downsample'),
  }
  for_drawing = ('num', 'seed')
  for names, kind in (
    (of_sets, 'metrics of sets'),
    (of_pairs, 'metrics of pairs'),
  ):
    for option in options_of[kind] if not names else ():
      if option in for_drawing and is_stage(args.samples):
        continue
      if getattr(args, option):
        raise ValueError(f'--{option} is for {kind}, and none was requested.')
  for option in ('lpips', 'lpips_weights') if LPIPS not in metrics else ():
    if getattr(args, option):
      raise ValueError(f'--{option} is for --metrics=lpips.')
  if args.lpips_weights and args.lpips_weights.count(',') != 1:
    raise ValueError(
      f'--lpips_weights={args.lpips_weights}: give two files, BACKBONE.pth and '
      'HEADS.pth, separated by a comma.'
    )
  evaluation_flags.check(args, metrics)
  named = f'{args.samples}{args.reference}'
  drawing_flags.check(args, draws=set_name.asks_to_draw(named))
  for option, what in (
    ('at', 'the checkpoint'),
    ('ema', 'the average'),
    ('sampler', 'the sampler'),
    ('steps', 'the number of steps'),
  ):
    value = getattr(args, option)
    if value is not None and not set_name.asks_to_draw(args.samples):
      raise ValueError(
        f'--{option}={value} is {what} of --samples, which are not drawn now: '
        'they are neither CONFIG.py@WORKDIR nor WORKDIR@eval.'
      )
  if args.seed is not None and not set_name.asks_to_draw(named):
    raise ValueError(
      f'--seed={args.seed} is for drawn images, but none are drawn: neither '
      '--samples nor --reference is CONFIG.py@WORKDIR or WORKDIR@eval.'
    )
  check_overrides(args, of_sets)
  return metrics


def check_overrides(args: argparse.Namespace, of_sets: Sequence[str]) -> None:
  """Raises ValueError if config overrides are about nothing that is read.

  Args:
    args: the parsed arguments.
    of_sets: names of the metrics of sets.
  """
  if args.overrides and not set_name.has_config(args.samples):
    raise ValueError(
      'Config overrides are for --samples=CONFIG.py@WORKDIR, WORKDIR@eval or '
      'CONFIG.py:eval.'
    )
  if args.reference_overrides and not of_sets:
    raise ValueError(
      'Config overrides of the reference are for metrics of sets, and none was '
      'requested.'
    )


def evaluate_sets(
  args: argparse.Namespace, metrics: Sequence[str]
) -> dict[str, Any]:
  """Computes metrics of sets and returns their row."""
  from cdm.distributed import compilation_cache
  from cdm.evaluation import compare_sets

  compilation_cache.enable_compilation_cache()
  row = compare_sets.judge(
    args.samples,
    args.reference,
    evaluation_flags.metric_choice(args, metrics),
    selection=evaluation_flags.selection(args),
    network=evaluation_flags.network(args),
    reference_overrides=args.reference_overrides,
  )
  return dict(row)


def is_stage(samples: str) -> bool:
  """Returns whether `samples` names a stage, whose images have originals."""
  return set_name.parse(samples).kind == 'stage'


def evaluate_drawn(
  args: argparse.Namespace, of_sets: Sequence[str], of_pairs: Sequence[str]
) -> dict[str, Any]:
  """Draws a stage's images once and returns the row of all metrics."""
  from cdm.distributed import compilation_cache
  from cdm.evaluation import compare_sets, paired_samples

  compilation_cache.enable_compilation_cache()
  scores = paired_samples.PairScorer(
    perceptual=make_lpips_scorer(args, of_pairs)
  )
  source = paired_samples.resolve_stage(
    args.samples,
    scores,
    evaluation_flags.selection(args),
  )
  row = {'samples': args.samples}
  if of_sets:
    compared = compare_sets.judge(
      args.samples,
      args.reference,
      evaluation_flags.metric_choice(args, of_sets),
      selection=evaluation_flags.selection(args),
      network=evaluation_flags.network(args),
      source=source,
      reference_overrides=args.reference_overrides,
    )
    row = dict(compared)
  paired_samples.draw_missing(source, scores)
  row = merge_rows(row, select_metrics(dict(scores.row()), of_pairs))
  provenance = {
    'samples_recipe': source.recipe,
    'paper': source.paper,
    'versions': compare_sets.versions(),
  }
  return provenance | row


def make_reference(args: argparse.Namespace) -> None:
  """Writes the statistics of a reference set."""
  from cdm.distributed import compilation_cache
  from cdm.evaluation import compare_sets
  from cdm.reporting import output_files

  if collectives.is_first():
    output_files.check(args.out, overwrite=args.overwrite)
  compilation_cache.enable_compilation_cache()
  statistics = compare_sets.make_reference(
    args.reference,
    args.out,
    selection=dataclasses.replace(
      evaluation_flags.selection(args), overrides=args.reference_overrides
    ),
    network=evaluation_flags.network(args),
  )
  print(f'Statistics of {statistics.count:,} images in {args.out}.')


def evaluate_pairs(
  args: argparse.Namespace, metrics: Sequence[str]
) -> dict[str, Any]:
  """Computes metrics of pairs and returns their row."""
  from cdm.evaluation import paired_metrics

  row = paired_metrics.evaluate_paths(
    args.samples,
    args.reference,
    lowres=args.lowres,
    downsample=args.downsample or 'bicubic',
    perceptual=make_lpips_scorer(args, metrics),
    max_value=args.max_value,
  )
  return select_metrics(dict(row), metrics)


def make_lpips_scorer(
  args: argparse.Namespace, metrics: Sequence[str]
) -> LpipsScorer | None:
  """Returns the scorer of LPIPS, or None if LPIPS was not requested."""
  if LPIPS not in metrics:
    return None
  from cdm.evaluation.lpips_scorer import LpipsScorer

  files = args.lpips_weights and args.lpips_weights.split(',')
  return LpipsScorer(args.lpips or 'alex', files)


def select_metrics(
  row: dict[str, Any], metrics: Sequence[str]
) -> dict[str, Any]:
  """Removes the metrics of pairs that were not requested from a row."""
  unwanted = set(metrics_table.PAIRS) - set(metrics)
  inner = ('conventions', 'intervals', 'counts', 'left_out', 'bicubic')
  for part in (row, *(row.get(key, {}) for key in inner)):
    for name in unwanted:
      part.pop(name, None)
      part.pop(f'{name}_{metrics_table.PAIRS[name].number.unit}', None)
  return row


def merge_rows(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
  """Returns one row with the values of both.

  Keys that both rows have must hold the same value, except 'conventions', whose
  entries are merged.
  """
  conventions = first.get('conventions', {}) | second['conventions']
  return second | first | {'conventions': conventions}


def print_warning(warning: str) -> None:
  """Prints to stderr why a score and its reference are not comparable."""
  import sys

  if collectives.is_first():
    print(f'cdm: NOT COMPARABLE: {warning}.', file=sys.stderr)
