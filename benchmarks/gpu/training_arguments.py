"""Reads the arguments of a job that trains, and makes its training small.

Words that begin with --config. are for `cdm train`.
"""

import argparse
import pathlib

from benchmarks.gpu import result_rows, timed_training

# The same programs, small.
SMOKE = (
  '--config.model.features=8',
  '--config.model.multipliers=(1,)',
  '--config.model.attention_resolutions=()',
  '--config.model.norm_groups=4',
  '--config.model.dtype=float32',
  '--config.train.batch_size=4',
  '--config.train.num_steps=4',
  '--config.train.log_every_steps=2',
  '--config.optimizer.warmup_steps=1',
  '--config.pipeline.worker_count=0',
)


def parser(text, *, minutes, num, of):
  """Returns a parser, to which a job adds its own arguments.

  Args:
    text: what --help says of the job.
    minutes: of training.
    num: images that are scored.
    of: what --num says of them.
  """
  found = argparse.ArgumentParser(
    description=text,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  for name in ('--out', '--work', '--prepared'):
    found.add_argument(name, required=True, type=pathlib.Path)
  found.add_argument('--minutes', type=float, default=minutes)
  found.add_argument('--num', type=int, default=num, help=of)
  found.add_argument('--smoke', action='store_true')
  return found


def parse(found, argv):
  """Returns (arguments, words for `cdm train`).

  Args:
    found: see `parser`.
    argv: the words of the command; None takes its own.

  Raises:
    SystemExit: a word is none of both.
  """
  args, words = found.parse_known_args(argv)
  wrong = [word for word in words if not word.startswith('--config.')]
  if wrong:
    raise SystemExit(f'{wrong[0]} is no option; --config.KEY=VALUE is.')
  # The training has the device, so this process does not ask JAX for it.
  args.card = result_rows.driver() or 'CPU'
  if args.smoke:
    args.minutes = timed_training.SMOKE_MINUTES
  return args, words
