"""`cdm export` writes a trained stage into one file."""

import argparse

from cdm.cli import drawing_flags

DESCRIPTION = """\
Write a trained stage into one file: one average of its parameters, rounded to
float16 if asked for, with its config, its step and a hash. Every command that
draws takes the file as --workdir, on its own and with nothing beside it. It is
a safetensors file, which other programs read too; nothing in it is executed.
"""
EPILOG = """\
examples:
  cdm export --workdir=runs/faithful --out=photo.safetensors --dtype=float16
  cdm export --workdir=runs/sr3 --at=best --out=sr3.safetensors \\
      --note=credits=credits.json --note=card=card.md
  cdm upscale --workdir=photo.safetensors photo.jpg
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='work directory of the trained stage',
  )
  parser.add_argument(
    '--out',
    required=True,
    metavar='FILE',
    help='the file, which ends in .safetensors',
  )
  parser.add_argument(
    '--dtype',
    choices=('float32', 'float16'),
    default='float32',
    help='what the parameters are rounded to (default: float32, which loses '
    'nothing)',
  )
  parser.add_argument(
    '--note',
    action='append',
    default=[],
    metavar='NAME=FILE',
    help='a text file that is written into it, such as credits or a model '
    'card; may be given again',
  )
  parser.add_argument(
    '--at',
    metavar='STEP',
    help="checkpoint to write: 'best', or a step (default: the newest)",
  )
  drawing_flags.average_argument(parser)
  parser.add_argument(
    '--overwrite', action='store_true', help='replace a file that is there'
  )


def run(args: argparse.Namespace) -> None:
  """Writes the file, and says what is in it."""
  import pathlib

  from cdm.checkpointing import packed_stage
  from cdm.data.printable_name import printable
  from cdm.sampling import exported_stage

  out = pathlib.Path(args.out)
  if out.suffix != packed_stage.SUFFIX:
    raise ValueError(
      f'--out={printable(out)} is to be a {packed_stage.SUFFIX} file; give it '
      'this ending.'
    )
  if out.exists() and not args.overwrite:
    raise ValueError(
      f'--out={printable(out)} exists; give another name, or --overwrite.'
    )
  notes = dict(_note(text) for text in args.note)
  out.absolute().parent.mkdir(parents=True, exist_ok=True)
  packed = exported_stage.export(
    pathlib.Path(args.workdir),
    out,
    at=drawing_flags.checkpoint(args.at, args.ema),
    dtype=args.dtype,
    notes=notes,
  )
  count = sum(array.size for array in packed.arrays.values())
  print(
    f'{printable(out)}: step {packed.step:,}, {count:,} parameters in '
    f'{args.dtype}, {out.stat().st_size / 1e6:,.3g} MB, sha256 '
    f'{packed.sha256}'
  )


def _note(text):
  """Parses NAME=FILE, and reads the file."""
  import pathlib

  from cdm.checkpointing import packed_stage

  name, _, path = text.partition('=')
  if not name.isidentifier() or not path:
    raise ValueError(
      f'--note={text}: give NAME=FILE, such as credits=credits.json.'
    )
  if name in (*packed_stage.OWN, packed_stage.CLASSES):
    raise ValueError(f'--note={text}: the file has an entry {name!r} already.')
  try:
    return name, pathlib.Path(path).read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(
      f'--note={text}: {path} cannot be read as text ({error}).'
    ) from None
