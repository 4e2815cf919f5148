"""Flags of `cdm upscale` for arrays of measured values."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from cdm.sampling.array_jobs import Values

FLAGS = ('range', 'axes')


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags to a command's parser."""
  parser.add_argument(
    '--range',
    metavar='LOW:HIGH',
    help='of arrays: the values that are black and white to the network; TIFF '
    'photographs are then read as arrays too (default: the range that the '
    'stage was trained with, 0 to 255 and 0 to 65535 for uint8 and uint16, the '
    'lowest and highest value of others)',
  )
  parser.add_argument(
    '--axes',
    metavar='AXES',
    help='of arrays: a letter for each axis in the order in which they are '
    'stored, of H, W, C (channels) and P (pages), e.g. HWC, CHW or PHW '
    '(default: as the file says; HW, HWC or PHWC for .npy)',
  )


def every_tiff(args: argparse.Namespace) -> bool:
  """Returns whether every TIFF file is to be read as an array."""
  return any(getattr(args, name) is not None for name in FLAGS)


def values(args: argparse.Namespace) -> Values:
  """Returns how the values of arrays are understood.

  Args:
    args: the parsed arguments.

  Raises:
    ValueError: a flag cannot be read; the message names it.
  """
  from cdm.data.arrays import array_layout, value_range
  from cdm.sampling import array_jobs

  return array_jobs.Values(
    range=None if args.range is None else value_range.parse(args.range),
    axes=None if args.axes is None else array_layout.parse_axes(args.axes),
  )
