"""`cdm import` writes a work directory from published weights."""

import argparse

DESCRIPTION = """\
Write a work directory from published weights, so that the other commands use
them as if they had been trained here. Known are the PyTorch files of StyleGAN's
generator that PULSE downloads, for configs with method.kind='pulse'. A file
must hold exactly the parameters of the config's network. Pickles in it are
interpreted and never run. With --gaussian_fit in the place of --mapping, the
generator can be searched by `cdm upscale`, but not trained further.
"""
EPILOG = """\
examples:
  cdm import --config=configs/pulse_faces1024.py --workdir=runs/pulse \\
      --synthesis=synthesis.pt --mapping=mapping.pt
  cdm import --config=configs/pulse_faces1024.py --workdir=runs/pulse \\
      --synthesis=synthesis.pt --gaussian_fit=gaussian_fit.pt
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='config of the stage, configs/NAME.py',
  )
  parser.add_argument(
    '--workdir', required=True, metavar='DIR', help='a new work directory'
  )
  parser.add_argument(
    '--synthesis',
    required=True,
    metavar='FILE',
    help="StyleGAN's synthesis network",
  )
  parser.add_argument(
    '--mapping', metavar='FILE', help="StyleGAN's mapping network"
  )
  parser.add_argument(
    '--gaussian_fit',
    metavar='FILE',
    help='mean and standard deviation of its outputs, in its place',
  )
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
  """Reads the files and writes the work directory."""
  import pathlib

  from cdm.config import cascade_stages, instantiate, loader, stage
  from cdm.training import imported_weights

  c = loader.load(args.config, args.overrides)
  cascade_stages.refuse_cascade(c, 'imported')
  instantiate.require(c, 'method')
  if c.method.get('kind') != 'pulse':
    raise ValueError(
      f'{args.config} has method.kind={c.method.get("kind")!r}; published '
      "weights can be imported for method.kind='pulse', such as "
      'configs/pulse_faces1024.py.'
    )
  if (args.mapping is None) == (args.gaussian_fit is None):
    raise ValueError(
      'cdm import takes either --mapping or --gaussian_fit beside --synthesis; '
      'give one of the two.'
    )
  if args.gaussian_fit is not None:
    loader.override_all(c, imported_weights.SEARCHED_ONLY)
  built = stage.stage(c)
  params = imported_weights.read_stylegan(
    built,
    synthesis=args.synthesis,
    mapping=args.mapping,
    gaussian_fit=args.gaussian_fit,
  )
  lines = imported_weights.write_workdir(c, pathlib.Path(args.workdir), params)
  print('\n'.join(lines))
