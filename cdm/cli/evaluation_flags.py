"""Flags shared by the commands that compute FID, KID etc. of image sets."""

import argparse
from collections.abc import Iterable
from typing import Any

# {option: the metrics that use it}.
METRICS_BY_OPTION = {'kid_size': ('kid',), 'few': ('fid', 'sfid')}
SETS = ('fid', 'sfid', 'is', 'kid', 'pr')


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
    help='allow FID and sFID of fewer than 2048 images',
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
    help='weights of Inception-v3 (default: downloaded)',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images per batch (default: 64, on CPUs 8)',
  )


def check(args: argparse.Namespace, metrics: Iterable[str]) -> None:
  """Refuses flags that no requested metric uses, and impossible values.

  Args:
    args: the parsed arguments.
    metrics: names of the requested metrics.

  Raises:
    ValueError: a flag cannot be used; the message names it.
  """
  for option, names in METRICS_BY_OPTION.items():
    if getattr(args, option) and not set(names) & set(metrics):
      raise ValueError(
        f'--{option} is for {" and ".join(names)}, which '
        f'{"is" if len(names) == 1 else "are"} not among the metrics.'
      )
  for option in ('num', 'batch_size', 'kid_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it must be at least 1.')
  if args.seed is not None and not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')


def network(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the keyword arguments of `extract_features.Gatherer`."""
  return {'weights': args.weights} | _given(args, 'batch_size')


def comparison(args: argparse.Namespace) -> dict[str, Any]:
  """Returns the keyword arguments of `compare_sets.compare`."""
  options = {'num': args.num, 'seed': args.seed, 'allow_few_images': args.few}
  return options | _given(args, 'kid_size')


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
  """Returns {name: value} of those flags that the user set."""
  values = {name: getattr(args, name) for name in names}
  return {name: value for name, value in values.items() if value is not None}
