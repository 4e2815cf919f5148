"""`cdm train`: trains one stage, or continues it."""

from cdm.distributed import initialize

DESCRIPTION = """\
Train one stage of a cascade. If WORKDIR holds a checkpoint, training continues
from it, bit for bit as if it had never stopped. Ctrl-C and SIGTERM finish the
step, save and end; a second one ends at once.

Writes into WORKDIR: checkpoints/, config.json, scalars.jsonl, tensorboard/,
grids/ (samples at fixed seeds), classes.json, sessions.jsonl (how each start
ended), failures/ (tracebacks) and rollbacks.json (data that was left out).
"""
EPILOG = """\
examples:
  cdm train --config=configs/photos8.py --workdir=runs/photos/base
  cdm train --config=configs/sr3_faces16to128.py --workdir=runs/sr3 \\
      --config.train_data.path=/data/ffhq --config.train.batch_size=64

exit codes:
  0   the run is complete
  1   a fault of the program
  2   bad input: config, data set, work directory, or a full disk
  3   the loss or the gradient is not finite, or the gradient spiked
  4   data error: reading, decoding or a worker process failed
  5   out of memory, of the device or of the host
  75  preempted (SIGTERM): saved; start the same command again
  76  lost the other processes of the run; start it again
  130 Ctrl-C: saved
"""


def arguments(parser):
  """Adds the command's arguments."""
  parser.add_argument(
    '--config', required=True, metavar='FILE', help='configs/NAME.py'
  )
  parser.add_argument(
    '--workdir', required=True, metavar='DIR', help='of this run'
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args):
  """Trains. Returns the exit code."""
  # Listens before the imports, which take seconds: whoever is preempted while
  # starting is preempted, and no failure.
  from cdm.training.preemption import Stop

  with Stop() as stop:
    import pathlib

    from cdm.config import loader
    from cdm.distributed import compilation_cache
    from cdm.training import trainer

    initialize.join(
      args.coordinator_address, args.num_processes, args.process_id
    )
    stop.agree()
    loaded = loader.load(args.config, args.overrides)
    compilation_cache.enable_compilation_cache()
    return trainer.train(loaded, pathlib.Path(args.workdir), stop=stop)
