"""Flags of `cdm upscale` for videos."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from cdm.sampling.video_jobs import Options

FLAGS = ('codec', 'crf')
CODECS = ('h264', 'hevc', 'vp9', 'av1')


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags to a command's parser."""
  parser.add_argument(
    '--codec',
    choices=CODECS,
    help='of the videos (default: h264, hevc for more than 8 bits; vp9 in '
    'WebM, av1 for more than 8 bits)',
  )
  parser.add_argument(
    '--crf',
    type=int,
    metavar='Q',
    help='quality of the videos, 0 is the best: to 51 for h264 and hevc, to 63 '
    'for vp9 and av1 (default: 18, 20, 24, 24)',
  )


def options(args: argparse.Namespace) -> Options:
  """Returns how videos are encoded.

  Args:
    args: the parsed arguments.
  """
  from cdm.sampling.video_jobs import Options

  return Options(codec=args.codec, crf=args.crf)
