"""Flags of `cdm upscale` for pictures of any size and their files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdm.cli import array_flags

if TYPE_CHECKING:
  from cdm.sampling.enlarged_jobs import Settings

# Those that only files of pictures have a use for.
OF_PICTURES = (
  'format',
  'quality',
  'subsampling',
  'compression',
  'strip_metadata',
  'compare',
  'wrap',
)
SIZES = ('scale', 'width', 'height', 'long_edge', 'megapixels')
FORMATS = ('jpg', 'png', 'tif', 'webp', 'avif', 'bmp')
_FLAGS = (
  *SIZES,
  *OF_PICTURES,
  'back_projection',
  'damage',
  'detail',
  *array_flags.FLAGS,
)


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the flags to a command's parser."""
  add = parser.add_argument
  add(
    '--scale',
    type=float,
    metavar='X',
    help='times as long each side becomes, 1 to 16 (default: the magnification '
    'of the stage)',
  )
  add('--width', type=int, metavar='PIXELS', help='width of the result')
  add('--height', type=int, metavar='PIXELS', help='height of the result')
  add(
    '--long_edge', type=int, metavar='PIXELS', help='longer side of the result'
  )
  add(
    '--megapixels',
    type=float,
    metavar='MP',
    help='millions of pixels of the result',
  )
  add(
    '--format',
    choices=FORMATS,
    help='of the results in a folder (default: that of each picture)',
  )
  add(
    '--quality',
    type=int,
    metavar='Q',
    help='1 to 100, of JPEG, WebP and AVIF (default: 95, 90 and 85)',
  )
  add(
    '--subsampling',
    choices=('4:4:4', '4:2:0'),
    help='of the colours of a JPEG (default: 4:4:4, none)',
  )
  add(
    '--compression',
    type=int,
    metavar='L',
    help='0 to 9, the effort for PNG and TIFF, which lose nothing',
  )
  add(
    '--strip_metadata',
    action='store_true',
    help='keep nothing of the metadata but the colour profile and the '
    'resolution (default: keep all)',
  )
  add(
    '--compare',
    action='store_true',
    help='also write NAME_compare.png beside each result: its most detailed '
    'part at 1:1, beside what was given and bicubic',
  )
  add(
    '--wrap',
    action='store_true',
    help='the pictures repeat on all sides, as textures do, and their results '
    'are to repeat without a seam',
  )
  add(
    '--back_projection',
    type=int,
    metavar='ROUNDS',
    help='rounds of correction that make the result shrink to its original '
    '(default: 1, and 0 for JPEG files below quality 90, noisy or blurred '
    'pictures, and results of the size of their original)',
  )
  add(
    '--damage',
    metavar='DAMAGE',
    help='what degraded the pictures, for a stage that restores it: none, or '
    'some of noise=SIGMA,jpeg=QUALITY,blur=SIGMA, in grey levels and pixels of '
    'the original (default: noise and quality are estimated)',
  )
  _detail(parser)
  array_flags.arguments(parser)


def _detail(parser):
  """Adds --detail."""
  parser.add_argument(
    '--detail',
    type=float,
    metavar='W',
    help='for a stage that draws details over a mean: from 0, the mean, which '
    'invents nothing, to 1, a draw, which looks like a photograph (default: '
    '0.6)',
  )


def refuse(
  args: argparse.Namespace, why: str, names: Sequence[str] = _FLAGS
) -> None:
  """Raises ValueError if a flag was given that has no effect.

  Args:
    args: the parsed arguments.
    why: the reason, a clause.
    names: the flags that are looked at.
  """
  for name in names:
    value = getattr(args, name)
    if value not in (None, False):
      flag = f'--{name}' if value is True else f'--{name}={value}'
      raise ValueError(f'{flag}: {why}; leave it out.')


def scale(args: argparse.Namespace, factor: int) -> float | None:
  """Returns how many times as long results are; None if pictures differ.

  Args:
    args: the parsed arguments.
    factor: the magnification of the stage.
  """
  if any(getattr(args, name) is not None for name in SIZES):
    return args.scale
  return float(factor)


def suffix(args: argparse.Namespace) -> str | None:
  """Returns the suffix that --format asks for, or None."""
  return None if args.format is None else f'.{args.format}'


def settings(args: argparse.Namespace, label: int | None) -> Settings:
  """Returns how pictures are enlarged.

  Args:
    args: the parsed arguments.
    label: class of all pictures, or None.

  Raises:
    ValueError: a value is out of range; the message names its flag.
  """
  from cdm.data import low_res_inputs
  from cdm.data.photographs import picture_writer
  from cdm.sampling import enlarged_jobs, enlarged_size

  damage = None
  if args.damage is not None:
    try:
      damage = low_res_inputs.parse(args.damage)
    except ValueError as error:
      raise ValueError(f'--damage={args.damage}: {error}') from None
  options = picture_writer.DEFAULTS._replace(quality=args.quality)
  if args.subsampling is not None:
    options = options._replace(subsampling=args.subsampling)
  if args.compression is not None:
    options = options._replace(compression=args.compression)
  picture_writer.check_options(options)
  rounds = args.back_projection
  if rounds is not None and not 0 <= rounds <= 10:
    raise ValueError(f'--back_projection={rounds}: give 0 to 10 rounds.')
  detail = enlarged_jobs.DETAIL if args.detail is None else args.detail
  if not 0.0 <= detail <= 1.0:
    raise ValueError(f'--detail={args.detail:g}: give a number from 0 to 1.')
  return enlarged_jobs.Settings(
    asked=enlarged_size.Asked(**{name: getattr(args, name) for name in SIZES}),
    seed=args.seed,
    label=label,
    back_projections=rounds,
    damage=damage,
    detail=detail,
    options=options,
    strip=args.strip_metadata,
    overwrite=args.overwrite,
    compare=args.compare,
    wrap=args.wrap,
  )
