"""`cdm train`: trains one stage, or continues it."""

from cdm import processes

DESCRIPTION = """\
Train one stage of a cascade. If WORKDIR holds a checkpoint, training continues
from it, bit for bit as if it had never stopped. Ctrl-C saves and ends.

Writes into WORKDIR: checkpoints/, config.json, scalars.jsonl, tensorboard/,
grids/ (samples at fixed seeds) and classes.json.
"""
EPILOG = """\
examples:
  cdm train --config=configs/photos8.py --workdir=runs/photos/base
  cdm train --config=configs/sr3_faces16to128.py --workdir=runs/sr3 \\
      --config.train_data.path=/data/ffhq --config.train.batch_size=64

exit codes:
  0 the run is complete, 2 bad input, 3 not finite, 130 Ctrl-C, 143 SIGTERM
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--config', required=True, metavar='FILE', help='configs/NAME.py'
  )
  parser.add_argument(
    '--workdir', required=True, metavar='DIR', help='of this run'
  )
  processes.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args):
  """Trains. Returns the exit code."""
  import pathlib
  import sys

  from cdm import config, training
  from cdm.train import loop, window

  processes.join(args.coordinator_address, args.num_processes, args.process_id)
  loaded = config.load(args.config, args.overrides)
  loop.enable_compilation_cache()
  try:
    return training.train(loaded, pathlib.Path(args.workdir))
  except window.Diverged as error:
    print(f'cdm: error: {error}', file=sys.stderr)
    return 3
