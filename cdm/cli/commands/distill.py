"""`cdm distill` trains students that draw in fewer and fewer steps."""

import argparse

from cdm.cli.commands import train
from cdm.distributed import initialize

DESCRIPTION = """\
Distil a trained diffusion model into students that draw in few steps. Each is
trained in a work directory of its own, WORKDIR/steps_N, from which every other
command draws as from any stage. With method.kind='progressive_distillation'
the first student takes config.method.num_steps steps and learns from TEACHER,
and each next one takes half as many and learns from the one before, down to 1.
With 'consistency_distillation' every student learns from TEACHER. The sampler
of a student is `ddim` with the steps that it has learned.

Started again, the command goes on where it was, bit for bit. On Ctrl-C or
SIGTERM it finishes the current step, saves a checkpoint and exits, as
`cdm train` does.
"""
EPILOG = """\
examples:
  cdm distill --config=configs/faces_small_distil_16to64.py \\
      --teacher=runs/faces --workdir=runs/distilled
  cdm upscale --workdir=runs/distilled/steps_1 --out=large small/*.png

exit codes: those of `cdm train`
"""


def arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's arguments to its parser."""
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='config of the students, configs/NAME.py',
  )
  parser.add_argument(
    '--teacher',
    required=True,
    metavar='DIR',
    help='work directory of the teacher, or DIR@STEP or DIR@best',
  )
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='the folder of their work directories',
  )
  parser.add_argument(
    '--steps',
    default='',
    metavar='N,N,...',
    help='steps of the students, by default those of the config, halved to 1',
  )
  initialize.arguments(parser)
  parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
  """Trains the students and returns the exit code."""
  try:
    steps = [int(word) for word in args.steps.split(',') if word]
  except ValueError as error:
    raise ValueError(
      f'--steps is {args.steps!r}; give whole numbers, as in --steps=4,2,1.'
    ) from error

  def distil(loaded, workdir, stop):
    from cdm.training import halvings

    return halvings.distil(
      loaded,
      workdir,
      teacher=args.teacher,
      steps=steps,
      stop=stop,
      make_fid=train.make_fid,
    )

  return train.run_in_job(args, distil)
