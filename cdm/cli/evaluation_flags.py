"""Flags shared by the commands that compute FID, KID etc. of image sets."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cdm.cli import drawing_flags
from cdm.evaluation import metrics_table, set_name

if TYPE_CHECKING:
  from cdm.evaluation.extract_features import GathererOptions
  from cdm.evaluation.image_selection import Selection
  from cdm.evaluation.set_metrics import MetricChoice


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags to a command's parser."""
  parser.add_argument(
    '--num',
    type=int,
    metavar='N',
    help='images to draw, or to take from a set (spread over the set)',
  )
  parser.add_argument(
    '--seed',
    type=int,
    metavar='S',
    help="seed of drawn images (default: the config's)",
  )
  parser.add_argument(
    '--few',
    action='store_true',
    help='allow FID, sFID and fd of fewer images than features (2048)',
  )
  parser.add_argument(
    '--kid_size',
    type=int,
    metavar='N',
    help='images per subset of KID (default: 1000)',
  )
  parser.add_argument(
    '--weights',
    metavar='FILE',
    help='weights of Inception-v3 (default: downloaded), or of another network '
    'for --metrics=fd: resnet20.th, ... of CIFAR-10',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images that the network judges at once, in each process (default: '
    '64 on each of its accelerators, on CPUs 8)',
  )
  drawing_flags.arguments(parser)
  parser.set_defaults(overrides=[], reference_overrides=[])


def and_text(names: Sequence[str]) -> str:
  """Returns names as a text: 'fid, fd and sfid'."""
  *most, last = names
  return f'{", ".join(most)} and {last}' if most else last


def check(args: argparse.Namespace, metrics: Iterable[str]) -> None:
  """Refuses flags that no requested metric uses, and impossible values.

  Args:
    args: the parsed arguments.
    metrics: names of the requested metrics.

  Raises:
    ValueError: a flag cannot be used; the message names it.
  """
  moments = [name for name, m in metrics_table.SETS.items() if m.from_moments]
  for option, names in (('kid_size', ['kid']), ('few', moments)):
    if getattr(args, option) and not set(names) & set(metrics):
      raise ValueError(
        f'--{option} is for {and_text(names)}, which '
        f'{"is" if len(names) == 1 else "are"} not among the metrics.'
      )
  for option in ('num', 'batch_size', 'kid_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it must be at least 1.')
  if args.seed is not None and not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')
  if args.reference_overrides and not set_name.has_config(args.reference):
    key, value = args.reference_overrides[0]
    raise ValueError(
      f'--reference_config.{key}={value} changes the config of --reference, '
      f'but --reference={args.reference} is of files; it is for '
      'CONFIG.py:train, CONFIG.py@WORKDIR or WORKDIR@eval.'
    )


def network(args: argparse.Namespace) -> GathererOptions:
  """Returns the keyword arguments of `extract_features.Gatherer`."""
  return {'weights': args.weights, 'batch_size': args.batch_size}


def metric_choice(
  args: argparse.Namespace, metrics: Sequence[str]
) -> MetricChoice:
  """Returns the metrics to compute, with the options that the user set."""
  from cdm.evaluation.set_metrics import MetricChoice

  return MetricChoice(metrics, args.few, args.kid_size)


def selection(args: argparse.Namespace) -> Selection:
  """Returns which images are read or sampled, as the user set it."""
  from cdm.evaluation.image_selection import Selection

  return Selection(
    args.num,
    args.seed,
    getattr(args, 'overrides', ()),
    getattr(args, 'max_value', None),
    drawing_flags.checkpoint(args.at, args.ema),
    args.batch_per_device,
    drawing_flags.redraws(args),
  )
