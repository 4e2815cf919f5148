"""Trains every method of super-resolution for the same time, and compares them.

  python benchmarks/faces_bench.py --train=TRAIN --held_out=HELD_OUT \\
      --runs=RUNS --out=OUT --weights=resnet56.npz

TRAIN and HELD_OUT are folders of aligned faces of 64 pixels or more. Every
method of `TASKS` is trained from configs/faces_small_*.py for the same CPU
time, `--core_minutes`, which other work on the machine changes little. Two
short runs measure the CPU time of a step; from it follows the number of steps,
over which the learning rate decays. RAISR, which is fitted, takes what it
needs. Then `cdm compare` makes the table and the page of each task, in
OUT/16to64 and OUT/8to32.

What is there is not done again: a run that was stopped goes on, a trained
method is not trained anew. --smoke does everything in a few steps.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Of the CPU time of a method, for its steps; the rest is for compiling,
# evaluating in training and saving.
SHARE = 0.85
PROBES = (20, 60)  # steps


class Task(NamedTuple):
  """A size, and what is compared at it.

  Attributes:
    low_res: side of the low-res images.
    size: side of the results.
    paper: whose numbers stand beside ours, see `cdm compare --help`.
    untrained: methods without training.
    trained: {name: config}; the last one chooses the images of the page.
  """

  low_res: int
  size: int
  paper: str
  untrained: tuple[str, ...]
  trained: dict[str, str]


# In the order of the papers' tables.
TASKS = {
  '16to64': Task(
    16,
    64,
    'sr3_faces',
    ('nearest', 'bicubic', 'nearest-neighbour'),
    {
      'raisr': 'faces_small_raisr16to64',
      'pulse': 'faces_small_pulse16to64',
      'fsrgan': 'faces_small_fsrgan16to64',
      'regression': 'faces_small_regression16to64',
      'sr3': 'faces_small_sr3_16to64',
    },
  ),
  '8to32': Task(
    8,
    32,
    'prsr_celeba',
    ('nearest', 'bicubic', 'nearest-neighbour'),
    {
      'regression': 'faces_small_regression8to32',
      'prsr': 'faces_small_prsr8to32',
      'sr3': 'faces_small_sr3_8to32',
    },
  ),
}
FITTED = ('raisr',)  # in a number of steps that the method knows


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ('--train', '--held_out', '--runs', '--out'):
    parser.add_argument(name, required=True, type=pathlib.Path)
  parser.add_argument(
    '--weights', type=pathlib.Path, help='of the Fréchet distance'
  )
  parser.add_argument('--core_minutes', type=float, default=60.0)
  parser.add_argument('--only', default='', metavar='TASK')
  parser.add_argument('--no_training', action='store_true', help='compare only')
  parser.add_argument('--smoke', action='store_true')
  args = parser.parse_args()
  # cdm runs in the checkout.
  args.runs, args.out = args.runs.resolve(), args.out.resolve()
  data = (
    f'--config.train_data.path={args.train.resolve()}',
    f'--config.eval_data.path={args.held_out.resolve()}',
  )
  for folder, task in TASKS.items():
    if args.only not in folder:
      continue
    if not args.no_training:
      for name, config in task.trained.items():
        train(args, f'{folder}/{name}', config, data)
    compare(args, folder, task)


def train(args, name, config, data):
  """Trains one method, or goes on with it."""
  workdir = args.runs / name
  words = [f'--config=configs/{config}.py', *data]
  if name.endswith(FITTED):
    steps = ['--config.train.num_steps=2'] if args.smoke else []
  else:
    steps = [f'--config.train.num_steps={num_steps(args, name, words)}']
    if args.smoke:
      steps += ['--config.optimizer.warmup_steps=1']
      steps += ['--config.eval.every_steps=0']
  run('train', *words, f'--workdir={workdir}', *steps)


def num_steps(args, name, words):
  """-> the number of steps of a method, which RUNS/steps.json keeps."""
  if args.smoke:
    return 4
  path = args.runs / 'steps.json'
  known = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
  if name not in known:
    seconds = seconds_per_step(args, name, words)
    known[name] = {
      'core_seconds_per_step': seconds,
      'steps': steps_within(60 * args.core_minutes, seconds),
    }
    args.runs.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=2), encoding='utf-8')
  return known[name]['steps']


def seconds_per_step(args, name, words):
  """-> CPU seconds of a step, without what a run costs besides."""
  spent = []
  for steps in (PROBES[0], *PROBES):  # The first one compiles.
    before = cpu_seconds()
    run(
      'train',
      *words,
      f'--workdir={args.runs / "probes" / name}-{steps}-{len(spent)}',
      f'--config.train.num_steps={steps}',
      '--config.optimizer.warmup_steps=1',
      '--config.eval.every_steps=0',
    )
    spent.append(cpu_seconds() - before)
  return (spent[2] - spent[1]) / (PROBES[1] - PROBES[0])


def steps_within(core_seconds, seconds_per_step):
  """-> how many steps fit into `SHARE` of the CPU time, in fifties."""
  return max(50, int(SHARE * core_seconds / seconds_per_step) // 50 * 50)


def cpu_seconds():
  """-> CPU seconds of all programs that this one has started and that ended."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def compare(args, folder, task):
  """Makes the table and the page of one task."""
  run(
    'compare',
    f'--methods={",".join((*task.untrained, *task.trained))}',
    f'--workdir={args.runs / folder}',
    f'--low_res={task.low_res}',
    f'--size={task.size}',
    f'--paper={task.paper}',
    f'--out={args.out / folder}',
    *([f'--weights={args.weights.resolve()}'] if args.weights else []),
    *(['--num=8'] if args.smoke else []),
  )


def run(command, *words):
  """Runs cdm; ends with its exit code if that is not 0."""
  line = [sys.executable, '-m', 'cdm', command, *words]
  print('$', *line[2:], flush=True)
  code = subprocess.run(line, cwd=ROOT).returncode
  if code:
    sys.exit(code)


if __name__ == '__main__':
  main()
