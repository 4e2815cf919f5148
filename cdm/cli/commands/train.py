"""`cdm train` trains one stage of a cascade, or resumes its training."""

import argparse
from collections.abc import Callable
from typing import Any

from cdm.distributed import initialize

DESCRIPTION = """\
Train one stage of a cascade. If WORKDIR holds a checkpoint, training resumes
from it, bit for bit as if it had never stopped. On Ctrl-C or SIGTERM the
command finishes the current step, saves a checkpoint and exits; a second signal
ends it at once.

Writes into WORKDIR: checkpoints/, config.json, scalars.jsonl, tensorboard/,
grids/ (samples at fixed seeds), classes.json (names of the labels),
sessions.jsonl (how each start ended), failures/ (tracebacks), restarts.jsonl
(how often it was started) and rollbacks.json (data that was skipped).
"""
EPILOG = """\
examples:
  cdm train --config=configs/photos8.py --workdir=runs/photos/base
  cdm train --config=configs/sr3_faces16to128.py --workdir=runs/sr3 \\
      --config.train_data.path=/data/ffhq --config.train.batch_size=64

exit codes:
  0   the run is complete
  1   a fault of the program
  2   bad input: config, data set, work directory, a full disk, or another run
      trains in the work directory; or restarts brought the run no further
  3   the loss or the gradient is not finite, or the gradient spiked
  4   data error: decoding failed, or the data is missing
  5   the device or the host is out of memory
  75  preempted (SIGTERM), a checkpoint is saved; or the run hung, or its
      storage did not answer: start the same command again
  76  the processes of the run did not find each other: look at the addresses
  77  the other processes of the run were lost: start the same command again
  130 Ctrl-C, a checkpoint is saved
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='config of one stage, configs/NAME.py',
  )
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='work directory of this run, a folder or gs://BUCKET/FOLDER',
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
  """Trains the stage and returns the exit code."""

  def train(loaded, workdir, stop):
    from cdm.training import trainer

    return trainer.train(loaded, workdir, stop=stop, make_fid=make_fid)

  return run_in_job(args, train)


def run_in_job(args: argparse.Namespace, train: Callable[..., int]) -> int:
  """Joins the processes of a run, and trains.

  Args:
    args: the arguments of the command.
    train: (config, work directory, handler of the signals) -> exit code.

  Returns:
    The exit code.
  """
  # The signal handlers are installed before the imports, which take seconds: a
  # SIGTERM during the start then counts as a preemption, not as a failure.
  from cdm.training.preemption import Stop

  with Stop() as stop:
    import pathlib

    from cdm.config import loader
    from cdm.distributed import compilation_cache, rendezvous
    from cdm.training import restarts

    workdir = pathlib.Path(args.workdir)
    try:
      initialize.join(
        args.coordinator_address,
        args.num_processes,
        args.process_id,
        stopped=lambda: None if stop.signum is None else stop.ending,
      )
    except rendezvous.PeersNotFound as error:
      explained = restarts.explain(error, workdir)
      if explained is error:
        raise
      raise explained from error
    stop.agree()
    loaded = loader.load(args.config, args.overrides)
    compilation_cache.enable_compilation_cache(workdir=args.workdir)
    return train(loaded, workdir, stop)


def make_fid(*given: Any) -> tuple[Callable, Callable]:
  """Builds the evaluation of FID, see `evaluation.training_fid.make_fid`."""
  from cdm.evaluation import training_fid  # Only runs with FID need it.

  return training_fid.make_fid(*given)
