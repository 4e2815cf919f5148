"""`cdm upscale` super-resolves images with one trained stage."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cdm.cli import (
  array_flags,
  drawing_flags,
  enlarging_flags,
  guidance_flags,
  video_flags,
)
from cdm.distributed import collectives, initialize

if TYPE_CHECKING:
  import pathlib

  from cdm.sampling.upscaler import Upscaler

DESCRIPTION = """\
Enlarge pictures with a trained super-resolution stage. A diffusion model or a
regression enlarges pictures of any size to any size, window by window, see
docs/photographs.md; what is in a file stays in it: colour profile, 16 bits,
transparency, metadata. Other methods cut a picture into tiles of the stage's
input size, and write PNG files. With --held_out=N the inputs are N of the
stage's own evaluation images: they are shrunk, super-resolved and written next
to their originals. --workdir also takes a method without training, as
METHOD:CONFIG.py. Arrays of measured values (.npy, FITS, TIFF with pages,
floating point or many channels) keep their numbers' meaning, see --range.
Videos (MP4, MOV, MKV, WebM, AVI and others) are enlarged frame by frame, with
their sound; see docs/video.md.

An IMAGE that is a folder stands for all such files in it and below it. An
image that cannot be used does not stop the others: it is named at the end, and
the exit code is not 0. If the command was interrupted, the same command
continues it. Other files in OUT are overwritten only with --overwrite.

Writes NAME_x4.jpg beside NAME.jpg, or with --out=OUT one file per image into
that folder, in its own format if it can be written. With --held_out OUT gets
the folders lowres, bicubic, upscaled and original, which `cdm evaluate` reads.
OUT also gets upscaled.png (or upscaled-2.png, ... if that name is taken), which
shows images of the stage's input size, their bicubic enlargement and the
stage's output side by side.
"""
EPILOG = """\
examples:
  cdm upscale --workdir=runs/photos/sr photo.jpg
  cdm upscale --workdir=runs/photos/sr photo.jpg --out=large.tif --scale=2.5
  cdm upscale --workdir=runs/photos/sr pictures/ --out=large --long_edge=4000
  cdm upscale --workdir=runs/photos/sr clip.mp4 --out=large.mkv --scale=2
  cdm upscale --workdir=runs/photos/sr --held_out=32 --out=runs/held_out
  cdm upscale --workdir=bicubic:configs/photos8to32.py --held_out=32 --out=OUT
  cdm upscale --workdir=runs/sr3 face.png --out=OUT \\
      --sampler=dpm_solver_pp_2m --steps=20
  cdm upscale --workdir=runs/sr3 face.png --out=OUT --start_level=0.4
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    'images',
    nargs='*',
    metavar='IMAGE',
    help='image files, or folders of them, to super-resolve',
  )
  parser.add_argument(
    '--workdir',
    metavar='DIR',
    help='work directory of the trained stage, or the file that `cdm export` '
    'made of it; or METHOD:CONFIG.py, a method without training (nearest, '
    'bicubic, nearest_neighbour) on the data of a config (default: the model '
    'for photographs that lies in the package, if there is one)',
  )
  parser.add_argument(
    '--out',
    metavar='DIR',
    help='folder for the images; or the file that one picture becomes, in the '
    'format of its suffix (default: beside each picture)',
  )
  parser.add_argument(
    '--held_out',
    type=int,
    metavar='N',
    help="super-resolve N of the stage's own evaluation images instead",
  )
  parser.add_argument(
    '--label',
    metavar='CLASS',
    help='class of the images, as a name or an index (default: unknown)',
  )
  parser.add_argument(
    '--level',
    type=float,
    default=0.0,
    metavar='L',
    help='augmentation level in [0, 1] of the low-res input (default: 0)',
  )
  parser.add_argument(
    '--start_level',
    metavar='L',
    help='begin at the enlarged low-res image, noised to this level in (0, 1] '
    'of the diffusion time, in the place of noise: fewer evaluations of the '
    'network, and a result closer to the input. Levels are those of --level, '
    'without rounding (default: begin at noise)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, metavar='S', help='random seed (default: 0)'
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='tiles per batch over all devices, instead of --batch_per_device',
  )
  drawing_flags.arguments(parser)
  guidance_flags.arguments(parser, cascades=False)
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='replace what other settings or programs wrote into OUT under the '
    'names of the results',
  )
  parser.add_argument(
    '--max_value',
    type=float,
    metavar='V',
    help='value of white in images of 16 or more bits that do not state it, '
    'for example 4095 for 12 bits (default: 65535)',
  )
  enlarging_flags.arguments(parser)
  video_flags.arguments(parser)
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
  """Super-resolves files, or the stage's held-out images."""
  import pathlib

  from cdm.distributed import compilation_cache
  from cdm.sampling import named_upscaler, shipped_model

  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  compilation_cache.enable_compilation_cache()

  _check(args)
  overrides = [*args.overrides, *guidance_flags.overrides(args)]
  at = drawing_flags.checkpoint(args.at, args.ema)
  workdir = args.workdir
  if workdir is None:
    workdir = shipped_model.photo()
  given = _Given(pathlib.Path(workdir), overrides, at)
  if args.held_out:
    why = 'held-out images have a size of their own'
    enlarging_flags.refuse(args, why)
    enlarging_flags.refuse(args, why, video_flags.FLAGS)
    _held_out(args, given)
    return
  factor = named_upscaler.canvas_factor(given.workdir, overrides, at)
  if factor is None:
    why = 'this method super-resolves tiles, and writes PNG files'
    enlarging_flags.refuse(args, why)
    enlarging_flags.refuse(args, why, video_flags.FLAGS)
    _tiles(args, given)
  else:
    _pictures(args, given, factor)


class _Given(NamedTuple):
  """What is opened.

  Attributes:
    workdir: work directory of the stage, or METHOD:CONFIG.py.
    overrides: ((dotted key, text), ...), applied to its config.
    at: which checkpoint.
  """

  workdir: pathlib.Path
  overrides: list[tuple[str, str]]
  at: int | str | None


def _check(args):
  """Refuses values that no stage can be used with."""
  if bool(args.images) == bool(args.held_out):
    raise ValueError(
      'cdm upscale takes image files or --held_out=N; give one of the two.'
    )
  for option in ('held_out', 'batch_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it must be at least 1.')
  drawing_flags.check(args)
  drawing_flags.check_batches(args)
  if not 0 <= args.seed < 2**32:
    raise ValueError(f'--seed={args.seed}: seeds are 0 to 2^32 - 1.')
  if args.held_out and args.label is not None:
    raise ValueError(
      f'--label={args.label} is for image files; held-out images have labels '
      'of their own. Leave it out.'
    )


def _folder(args):
  """Returns the output folder, which must be given."""
  import pathlib

  from cdm.reporting import output_files

  if args.out is None:
    raise ValueError(
      'Give --out=DIR, the folder for the images. (Only pictures that a '
      'diffusion model or a regression enlarges are written beside the '
      'originals without it.)'
    )
  output_files.check_folder_name(args.out)
  return pathlib.Path(args.out)


def _opened(args, given):
  """Returns (Upscaler, config of its stage, names of its classes)."""
  from cdm.sampling import drawing_batch, exported_stage, named_upscaler

  upscaler, saved = named_upscaler.opened(
    given.workdir,
    level=args.level,
    batch_size=args.batch_size,
    limits=drawing_batch.TILES._replace(per_device=args.batch_per_device),
    overrides=given.overrides,
    at=given.at,
    redraws=drawing_flags.redraws(args),
  )
  return upscaler, saved, exported_stage.classes(given.workdir)


def _label(args, upscaler, names):
  """Returns the class of all images, and says it."""
  from cdm.data import class_names

  label = parse_label(args.label, upscaler, names)
  if label is not None and collectives.is_first():
    print(f'class of all images: {class_names.describe(label, names)}')
  return label


def _pictures(args, given, factor):
  """Enlarges pictures of any size."""
  from cdm.sampling import (
    enlarged_arrays,
    enlarged_files,
    enlarged_inputs,
    enlarged_videos,
    upscale_inputs,
  )

  enlarging_flags.settings(args, None)  # checks them
  array_flags.values(args)
  # The inputs are read before the checkpoint, which may take minutes.
  inputs = enlarged_inputs.check(
    args.images,
    args.out,
    scale=enlarging_flags.scale(args, factor),
    suffix=enlarging_flags.suffix(args),
    max_value=args.max_value,
    every_tiff=array_flags.every_tiff(args),
  )
  has_pictures = bool(inputs.pictures or inputs.refused)
  if not has_pictures:
    why = 'arrays keep their kind, their numbers and their header'
    names = [*enlarging_flags.OF_PICTURES]
    if inputs.videos:
      why = 'it is of pictures; videos have --codec and --crf'
      names.remove('strip_metadata')
    enlarging_flags.refuse(args, why, names)
    why = 'it is of pictures; --range is that of arrays'
    enlarging_flags.refuse(args, why, ['max_value'])
  if inputs.arrays or inputs.videos:
    enlarging_flags.refuse(args, 'only pictures repeat', ['wrap'])
  if not inputs.arrays:
    enlarging_flags.refuse(args, 'no file is an array', array_flags.FLAGS)
  if not inputs.videos:
    enlarging_flags.refuse(args, 'no file is a video', video_flags.FLAGS)
  upscaler, _, names = _opened(args, given)
  canvas = upscaler.canvas
  if args.damage is not None and not canvas.takes_any_factor:
    raise ValueError(
      f'--damage={args.damage}: this stage is not told what degraded a '
      'picture; leave it out.'
    )
  if args.detail is not None and not canvas.stage.canvas.draws_mean:
    raise ValueError(
      f'--detail={args.detail:g}: this stage draws no details over a mean; '
      'leave it out.'
    )
  settings = enlarging_flags.settings(args, _label(args, upscaler, names))
  of, common = functools.partial, (upscaler, inputs, settings)
  work = []
  if inputs.arrays:
    values = array_flags.values(args)
    work.append(of(enlarged_arrays.write_enlarged_arrays, *common, values))
  if has_pictures:
    work.append(of(enlarged_files.write_enlarged_files, *common))
  if inputs.videos:  # They take longest.
    options = video_flags.options(args)
    work.append(of(enlarged_videos.write_enlarged_videos, *common, options))
  errors = []
  for part in work:
    try:
      part()
    except ValueError as error:
      # The others do not wait for files that cannot be used.
      errors.append(error)
  if errors:
    raise upscale_inputs.joined(errors)


def _tiles(args, given):
  """Super-resolves pictures tile by tile."""
  from cdm.sampling import named_upscaler, upscale_files, upscale_inputs

  out = _folder(args)
  tile = named_upscaler.lowres_size(given.workdir, given.overrides, given.at)
  inputs = upscale_inputs.check(
    args.images, out, tile=tile, max_value=args.max_value
  )
  upscaler, _, names = _opened(args, given)
  label = _label(args, upscaler, names)
  upscale_files.write_upscaled_files(
    out, upscaler, inputs, label, seed=args.seed, overwrite=args.overwrite
  )


def _held_out(args, given):
  """Super-resolves the stage's own evaluation images."""
  from cdm.config import class_agreement, evaluated_images, loader
  from cdm.sampling import upscale_files

  out = _folder(args)
  upscaler, saved, names = _opened(args, given)
  saved = class_agreement.of_stage(saved, given.workdir, upscaler.num_classes)
  upscale_files.write_upscaled_held_out(
    out,
    upscaler,
    evaluated_images.read_held_out(saved, args.held_out),
    count=args.held_out,
    seed=args.seed,
    manifest={
      **upscaler.record.manifest(
        after_checkpoint={'seed': args.seed},
        after_level={'count': args.held_out},
      ),
      'eval_data': loader.plain(saved.eval_data),
    },
    class_names=names,
    overwrite=args.overwrite,
  )


def parse_label(
  text: str | None, upscaler: Upscaler, names: Sequence[str] | None
) -> int | None:
  """Parses `--label`.

  Args:
    text: name or index of a class; None for an unknown class.
    upscaler: the stage.
    names: names of the classes, by index; None if they have none.

  Returns:
    The index of the class, or None for an unknown class or a stage without
    classes.

  Raises:
    ValueError: there is no such class, the stage takes no label, or the stage
      needs one.
  """
  if upscaler.num_classes is None:
    if text is not None:
      raise ValueError(
        f'--label={text} was given, but this stage takes no label.'
      )
    return None
  if text is None:
    if not upscaler.null_class:
      raise ValueError(
        'This stage was trained with a label for every image; give '
        f'--label=CLASS, one of {upscaler.num_classes} by name or index.'
      )
    return None
  from cdm.data import class_names

  try:
    return class_names.find_label(text, names, upscaler.num_classes)
  except ValueError as error:
    raise ValueError(f'--label={text}: {error}') from None
