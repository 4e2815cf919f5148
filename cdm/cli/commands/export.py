"""`cdm export` writes a trained stage as files for others."""

import argparse

from cdm.cli import drawing_flags, export_flags

DESCRIPTION = """\
Write a trained stage as files for others. Nothing is uploaded.

--to=stage, the default: one file with one average of the parameters, rounded to
float16 if asked for, with its config, its step and a hash. Every command that
draws takes it as --workdir, and `cdm import --from=cdm` makes a work directory
of it. It is a safetensors file, which other programs read too; nothing in it is
executed.

--to=stablehlo: one program for CPUs, GPUs and TPUs, with the parameters in it:
the denoiser, the whole sampler, or the upscaler. Python with JAX runs it
without cdm: jax.export.deserialize(data).call(seed=..., indices=...).

--to=diffusers: a folder with the U-Net as a UNet2DModel of diffusers, for
PyTorch, where that library can express it: config.json, its safetensors file
and scheduler_config.json. What it cannot express is refused by name.

--to=huggingface: a folder with the packed stage, its config and a model card,
README.md, whose metadata Hugging Face reads.

--to=onnx: the network of degraded photographs with the enlargement before it,
for the runtimes of browsers and phones; pictures of any size.
"""
EPILOG = """\
examples:
  cdm export --workdir=runs/faithful --out=photo.safetensors --dtype=float16
  cdm export --workdir=runs/sr3 --at=best --out=sr3.safetensors \\
      --note=credits=credits.json --note=card=card.md
  cdm upscale --workdir=photo.safetensors photo.jpg
  cdm export --to=stablehlo --workdir=runs/base --out=base.stablehlo --steps=50
  cdm export --to=stablehlo --workdir=photo.safetensors --tile=64 \\
      --out=photo.stablehlo
  cdm export --to=diffusers --workdir=runs/ddpm32 --out=ddpm32
  cdm export --to=huggingface --workdir=runs/sr3 --out=sr3 \\
      --license=apache-2.0 --figures=psnr.json --note=card=card.md
  cdm export --to=onnx --workdir=photo.safetensors --out=photo.onnx
"""
# The flags that only some forms take.
_TAKEN = {
  'stage': ('dtype', 'note', 'overwrite'),
  'stablehlo': (
    *('dtype', 'overwrite', 'program', 'sampler', 'steps', 'level'),
    *('tile', 'batch_size', 'platforms'),
  ),
  'diffusers': ('dtype', 'overwrite'),
  'huggingface': ('dtype', 'note', 'overwrite', 'license', 'figures'),
  'onnx': ('dtype', 'overwrite'),
}


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='work directory of the trained stage, or a packed stage',
  )
  parser.add_argument(
    '--out',
    required=True,
    metavar='PATH',
    help='what is written: FILE.safetensors, FILE.stablehlo, FILE.onnx, or a '
    'folder',
  )
  parser.add_argument(
    '--to',
    choices=tuple(_TAKEN),
    default='stage',
    help='the form that it is written in (default: stage)',
  )
  parser.add_argument(
    '--at',
    metavar='STEP',
    help="checkpoint to write: 'best', or a step (default: the newest)",
  )
  drawing_flags.average_argument(parser)
  parser.add_argument(
    '--dtype',
    choices=('float32', 'float16'),
    help='what the parameters are rounded to (default: float32, which loses '
    'nothing)',
  )
  parser.add_argument(
    '--note',
    action='append',
    metavar='NAME=FILE',
    help='a text file that is written into it, such as credits or a model '
    'card; may be given again',
  )
  parser.add_argument(
    '--overwrite',
    action='store_const',
    const=True,
    help='replace a file that is there',
  )
  export_flags.program_arguments(parser)
  export_flags.card_arguments(parser)


def run(args: argparse.Namespace) -> None:
  """Writes the file, and says what is in it."""
  import pathlib

  from cdm.data.printable_name import printable

  export_flags.refuse_others(args, _TAKEN)
  out = pathlib.Path(args.out)
  if out.exists() and not args.overwrite:
    raise ValueError(
      f'--out={printable(out)} exists; give another name, or --overwrite.'
    )
  at = drawing_flags.checkpoint(args.at, args.ema)
  print(_FORMS[args.to](args, out, at))


def _write_stage(args: argparse.Namespace, out, at) -> str:
  import pathlib

  from cdm.checkpointing import packed_stage
  from cdm.data.printable_name import printable
  from cdm.sampling import exported_stage

  export_flags.check_suffix(out, packed_stage.SUFFIX)
  notes = dict(_note(text) for text in args.note or ())
  dtype = args.dtype or 'float32'
  out.absolute().parent.mkdir(parents=True, exist_ok=True)
  packed = exported_stage.export(
    pathlib.Path(args.workdir), out, at=at, dtype=dtype, notes=notes
  )
  count = sum(array.size for array in packed.arrays.values())
  return (
    f'{printable(out)}: step {packed.step:,}, {count:,} parameters in '
    f'{dtype}, {out.stat().st_size / 1e6:,.3g} MB, sha256 {packed.sha256}'
  )


def _write_program(args: argparse.Namespace, out, at) -> str:
  import pathlib

  from cdm.data.printable_name import printable
  from cdm.sampling import exported_program

  export_flags.check_suffix(out, exported_program.SUFFIX)
  platforms = export_flags.platforms(args.platforms)
  asked = export_flags.asked_program(args)
  given, kind = exported_program.program(pathlib.Path(args.workdir), at, asked)
  lowered = exported_program.lowered(
    given,
    dtype=args.dtype or 'float32',
    batch_size=args.batch_size,
    platforms=platforms,
  )
  out.absolute().parent.mkdir(parents=True, exist_ok=True)
  size = exported_program.write(out, lowered)
  inputs = exported_program.described(given, args.batch_size)
  return (
    f'{printable(out)}: the {kind} for {", ".join(platforms)}, '
    f'{size / 1e6:,.3g} MB\ncall({inputs})'
  )


def _write_diffusers(args: argparse.Namespace, out, at) -> str:
  import pathlib

  from cdm.data.printable_name import printable
  from cdm.sampling import exported_diffusers, exported_stage

  export_flags.check_folder(out)
  read = exported_stage.read_stage(pathlib.Path(args.workdir), at)
  made = exported_diffusers.convert(read)
  dtype = args.dtype or 'float32'
  exported_diffusers.write(out, made, dtype)
  count = sum(array.size for array in made.state.values())
  first = (
    f'{printable(out)}: step {read.step:,}, UNet2DModel of {count:,} '
    f'parameters in {dtype}, {made.scheduler["_class_name"]}'
  )
  return '\n'.join([first, *made.notes])


def _write_folder(args: argparse.Namespace, out, at) -> str:
  import pathlib

  from cdm.data.printable_name import printable
  from cdm.sampling import exported_folder

  export_flags.check_folder(out)
  dtype = args.dtype or 'float32'
  licence = export_flags.licence(args.license)
  packed = exported_folder.export(
    pathlib.Path(args.workdir),
    out,
    at=at,
    dtype=dtype,
    notes=dict(_note(text) for text in args.note or ()),
    licence=licence,
    figures=export_flags.figures(args.figures or ()),
  )
  return (
    f'{printable(out)}: model card, config and weights of step '
    f'{packed.step:,} in {dtype}, sha256 {packed.sha256}; nothing was uploaded'
  )


def _write_onnx(args: argparse.Namespace, out, at) -> str:
  import pathlib

  from cdm.data.printable_name import printable
  from cdm.sampling import exported_onnx, exported_stage

  export_flags.check_suffix(out, exported_onnx.SUFFIX)
  read = exported_stage.read_stage(pathlib.Path(args.workdir), at)
  dtype = args.dtype or 'float32'
  model = exported_onnx.build_model(read, dtype=dtype)
  out.absolute().parent.mkdir(parents=True, exist_ok=True)
  size = exported_onnx.write(out, model)
  return (
    f'{printable(out)}: step {read.step:,} in {dtype}, opset '
    f'{exported_onnx.OPSET}, {size / 1e6:,.3g} MB'
  )


_FORMS = {
  'stage': _write_stage,
  'stablehlo': _write_program,
  'diffusers': _write_diffusers,
  'huggingface': _write_folder,
  'onnx': _write_onnx,
}


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
