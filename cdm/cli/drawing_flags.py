"""Flags of the commands that draw images: checkpoint, sampler and batches."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags to a command's parser."""
  parser.add_argument(
    '--at',
    metavar='STEP',
    help="checkpoint to draw with: 'best' (of each stage), or a step (default: "
    'the newest)',
  )
  average_argument(parser)
  sampler_arguments(parser)
  parser.add_argument(
    '--batch_per_device',
    type=int,
    metavar='B',
    help='images that each device draws at once (default: chosen from its '
    'memory, see `cdm plan --step=sample --search`); does not change the '
    'images',
  )


def average_argument(parser: argparse.ArgumentParser) -> None:
  """Adds --ema to a command's parser."""
  parser.add_argument(
    '--ema',
    metavar='AVERAGE',
    help='average of the parameters to draw with: one that the run keeps, such '
    'as decay=0.999 or std=0.05, or any width, std=0.075, that its snapshots '
    'express (default: main)',
  )


def sampler_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that choose a sampler and its number of steps."""
  parser.add_argument(
    '--sampler',
    metavar='KIND',
    help='draw with this sampler, for example heun, on the grid of the config; '
    'or base:heun,sr:ddim for the stages of a cascade (default: see `cdm '
    'describe`)',
  )
  parser.add_argument(
    '--steps',
    metavar='N',
    help='draw in N steps; or base:50,sr:8 for the stages of a cascade '
    '(default: those of the grid of the config)',
  )


def redraws(args: argparse.Namespace) -> Sequence[tuple[str, str]]:
  """Parses --sampler, --steps and --start_level; see `redrawn_sampler.parse`.

  Raises:
    ValueError: a flag has no such value; the message names it.
  """
  given = args.sampler, args.steps, getattr(args, 'start_level', None)
  if given == (None, None, None):
    return ()
  from cdm.config import redrawn_sampler

  return redrawn_sampler.parse(*given)


def check(args: argparse.Namespace, *, draws: bool = True) -> None:
  """Refuses impossible values, and flags where no image is drawn.

  Args:
    args: the parsed arguments.
    draws: whether the command draws images.

  Raises:
    ValueError: a flag cannot be used; the message names it.
  """
  for option in ('at', 'ema', 'sampler', 'steps', 'batch_per_device'):
    value = getattr(args, option)
    if value is not None and not draws:
      raise ValueError(
        f'--{option}={value} is for images that are drawn now, but none are '
        'drawn; leave it out.'
      )
  checkpoint(args.at, args.ema)
  redraws(args)
  if args.batch_per_device is not None and args.batch_per_device < 1:
    raise ValueError(
      f'--batch_per_device={args.batch_per_device}: it must be at least 1.'
    )


def check_batches(args: argparse.Namespace) -> None:
  """Raises ValueError if both sizes of the batch that is drawn are given."""
  if args.batch_size is not None and args.batch_per_device is not None:
    raise ValueError(
      f'--batch_size={args.batch_size} --batch_per_device='
      f'{args.batch_per_device}: the first is the batch over all devices, the '
      'second that of each; give one of the two.'
    )


def checkpoint(
  text: str | None, average: str | None = None
) -> int | str | None:
  """Parses --at and --ema; see `checkpointing.checkpoint_name`.

  Raises:
    ValueError: --at is neither 'best' nor a step, or --ema names no average.
  """
  at = _step(text)
  if average is None:
    return at
  from cdm.checkpointing import average_names, checkpoint_name

  try:
    name = average_names.canonical(average)
  except ValueError as error:
    raise ValueError(f'--ema={average}: {error}') from None
  return checkpoint_name.joined(at, name)


def _step(text):
  if text is None or text == 'best':
    return text
  if not (text.isascii() and text.isdecimal()):
    raise ValueError(
      f"--at={text}: give 'best', or the step of a checkpoint, such as 10000."
    )
  return int(text)
