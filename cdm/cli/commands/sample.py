"""`cdm sample` draws images from a cascade of trained stages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdm.cli import drawing_flags, guidance_flags
from cdm.distributed import collectives, initialize

if TYPE_CHECKING:
  from cdm.sampling.cascade import Stage
  from cdm.sampling.start_images import StartImages

DESCRIPTION = """\
Draw images from a cascade. Every stage is restored from its own checkpoint in
WORKDIR/STAGE, with the config that was saved there. Image n depends on
(seed, n) only. If the command was interrupted, the same command continues it.

Writes into OUT: one folder of PNGs per stage (every thousand after the first in
a folder of its own), samples.npz (arr_0: images, uint8
NHWC, arr_1: labels; the format that the ADM evaluator reads), classes.json
(names of the labels), samples.png (an overview: images beside the outputs of
the earlier stages) and sampling.json (the manifest: every setting that the
images depend on).

More than 100,000 images are written as ArrayRecord shards in OUT/STAGE instead,
of the last stage only and without samples.npz. `cdm evaluate`, `cdm cas`, `cdm
prepare` and training read OUT in place.

Stages of other channels than three, or trained on arrays, write one array,
OUT/samples.npy, [N, H, W, C].
"""
EPILOG = """\
examples:
  cdm sample --config=configs/photos_cascade32.py --workdir=runs/photos \\
      --num=64 --out=runs/photos/samples
  cdm sample --config=configs/cdm_cascade256.py --workdir=runs/cdm \\
      --num=50000 --seed=0 --out=runs/cdm/samples50k --at=best
  cdm sample --config=configs/cdm_cascade128.py --workdir=runs/cdm \\
      --num=1281167 --out=runs/cdm/train_set --format=array_records
  cdm sample ... --labels=cat,coffee,7 --config.stages.sr.level=0.2
  cdm sample ... --sampler=base:heun,sr:ddim --steps=base:18,sr:8
  cdm sample ... --start_images=sketches --start_level=0.6 --num=16
  cdm sample ... --guide=base:runs/small@50000 --guidance_weight=base:0.5
"""

# The largest number of class names that are printed before sampling begins.
MOST_SHOWN = 10


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='config of a cascade, or of a single base model',
  )
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='folder with the work directory of each stage',
  )
  parser.add_argument(
    '--num',
    type=int,
    default=64,
    metavar='N',
    help='number of images (default: 64)',
  )
  parser.add_argument(
    '--seed',
    type=int,
    metavar='S',
    help="random seed (default: the config's)",
  )
  parser.add_argument(
    '--out', metavar='DIR', help='output folder (default: WORKDIR/samples)'
  )
  parser.add_argument(
    '--labels',
    metavar='L,L,...',
    help='classes to draw in rotation, as names or indices (default: all)',
  )
  parser.add_argument(
    '--start_images',
    metavar='SET',
    help='begin image n at the n-th image of this set, noised to --start_level '
    '(SDEdit): a FOLDER, an .npz, a picture file, CONFIG.py:train or '
    'CONFIG.py:eval, of the size of the base model',
  )
  parser.add_argument(
    '--start_level',
    metavar='L',
    help='the level of that noise in (0, 1], a fraction of the diffusion time; '
    '1 keeps next to nothing of the images',
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    metavar='B',
    help='images per batch over all devices, instead of --batch_per_device',
  )
  drawing_flags.arguments(parser)
  guidance_flags.arguments(parser, cascades=True)
  parser.add_argument(
    '--format',
    choices=('png', 'array_records'),
    help='how the images are kept (default: png for up to 100,000 images, '
    'array_records above)',
  )
  parser.add_argument(
    '--stages',
    choices=('all', 'last'),
    help='stages whose images are kept (default: all as png, last as '
    'array_records)',
  )
  parser.add_argument(
    '--overwrite',
    action='store_true',
    help='replace what other settings or programs wrote into OUT under the '
    'names of the results',
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
  """Draws the missing images, then writes the files that hold all of them."""
  import pathlib

  from cdm.config import cascade_stages, loader
  from cdm.data import class_names
  from cdm.distributed import compilation_cache
  from cdm.reporting import guidance_weight, output_files
  from cdm.sampling import (
    array_samples,
    drawing_batch,
    generate,
    restore,
    sample_storage,
  )

  check(args)
  initialize.join(args.coordinator_address, args.num_processes, args.process_id)
  compilation_cache.enable_compilation_cache()

  loaded = loader.load(args.config, args.overrides)
  stage_names = cascade_stages.names(loaded)
  guidance = guidance_flags.overrides(args, stage_names)
  if stage_names is not None:
    loader.override_all(loaded, guidance)
  seed = loaded.seed if args.seed is None else args.seed
  if not 0 <= seed < 2**32:
    raise ValueError(f'--seed={seed}: seeds are 0 to 2^32 - 1.')
  workdir = pathlib.Path(args.workdir)
  if args.out:
    output_files.check_folder_name(args.out)
  stages, notes = restore.restored_cascade(
    loaded,
    workdir,
    [*args.overrides, *guidance],
    drawing_flags.checkpoint(args.at, args.ema),
    redraws=drawing_flags.redraws(args),
  )
  given = None
  if args.start_images is not None:
    given = open_start_images(args, stages[0].image_size)
    stages[0] = stages[0]._replace(starts=given.rows)
  out = pathlib.Path(args.out) if args.out else workdir / 'samples'
  names = class_names.read(workdir / notes[0]['folder'])
  labels = parse_labels(args.labels, stages, names)
  manifest: generate.Manifest = {
    'config': loaded.name,
    'seed': seed,
    'labels': labels,
    'stages': notes,
  }
  if given is not None:
    manifest['start_images'] = given.manifest
  batch_size = args.batch_size or drawing_batch.batch_size(
    stages, num=args.num, per_device=args.batch_per_device
  )
  if not stages[-1].is_rgb:
    refuse_files(args)
    array_samples.draw_to_folder(
      out,
      stages,
      manifest=manifest,
      num=args.num,
      batch_size=batch_size,
      overwrite=args.overwrite,
    )
    return
  storage = sample_storage.choose(
    out,
    stages,
    num=args.num,
    format=args.format,
    kept=args.stages,
    overwrite=args.overwrite,
  )
  sample_storage.announce(storage)
  if collectives.is_first():
    for line in guidance_weight.start_lines(notes):
      print(line)
  if labels and collectives.is_first():
    print_labels(labels, names)
  generate.draw_to_folder(
    out,
    stages,
    manifest=manifest,
    num=args.num,
    batch_size=batch_size,
    class_names=names,
    overwrite=args.overwrite,
    storage=storage,
  )


def check(args: argparse.Namespace) -> None:
  """Raises ValueError if options contradict each other or are out of range."""
  for option in ('num', 'batch_size'):
    value = getattr(args, option)
    if value is not None and value < 1:
      raise ValueError(f'--{option}={value}: it must be at least 1.')
  drawing_flags.check(args)
  drawing_flags.check_batches(args)
  if (args.start_images is None) != (args.start_level is None):
    raise ValueError(
      '--start_images=SET and --start_level=L belong together: drawing begins '
      'at the images, noised to the level. Give both or none.'
    )


def refuse_files(args: argparse.Namespace) -> None:
  """Raises ValueError about options that samples in one array do not have."""
  for option in ('start_images', 'format', 'stages'):
    value = getattr(args, option)
    if value is not None:
      raise ValueError(
        f'--{option}={value}: these stages draw no RGB images of 8 bits, and '
        'their samples are one array, OUT/samples.npy; leave it out.'
      )


def open_start_images(args: argparse.Namespace, size: int) -> StartImages:
  """Opens the images of --start_images, and checks every one that is used.

  Args:
    args: the parsed arguments.
    size: side of the images of the base model.

  Raises:
    ValueError: there are no such images, or too few, or one of another size.
  """
  from cdm.evaluation import set_name
  from cdm.sampling import start_images

  name = set_name.parse(args.start_images)
  if name.kind not in ('files', 'data'):
    raise ValueError(
      f'--start_images={args.start_images} would have to be drawn first; draw '
      'it into a folder with `cdm sample` or `cdm upscale`, and give that.'
    )
  assert name.path is not None
  return start_images.open_images(
    name.path, name.split, num=args.num, size=size
  )


def parse_labels(
  text: str | None, stages: Sequence[Stage], names: Sequence[str] | None
) -> list[int] | None:
  """Parses `--labels`.

  Args:
    text: names or indices of classes, separated by commas; None for all.
    stages: the stages of the cascade.
    names: names of the classes, by index; None if they have none.

  Returns:
    The labels to draw in rotation, or None if no stage takes a label.

  Raises:
    ValueError: labels were given for stages without classes, or one of them is
      not a class.
  """
  counts = [s.num_classes for s in stages if s.num_classes is not None]
  if not counts:
    if text:
      raise ValueError(
        f'--labels={text} was given, but no stage of this cascade takes a '
        'label; leave it out.'
      )
    return None
  if text is None:
    return list(range(counts[0]))
  from cdm.data import class_names

  try:
    return class_names.find_labels(text, names, counts[0])
  except ValueError as error:
    raise ValueError(f'--labels={text}: {error}') from None


def print_labels(labels: Sequence[int], names: Sequence[str] | None) -> None:
  """Prints the names of the classes that are drawn, at most `MOST_SHOWN`."""
  from cdm.data import class_names

  shown = [class_names.describe(label, names) for label in labels[:MOST_SHOWN]]
  if len(labels) > MOST_SHOWN:
    shown.append(f'and {len(labels) - MOST_SHOWN} more')
  print(f'classes in rotation: {", ".join(shown)}')
