"""What saving and reporting take of a run's time.

  python benchmarks/overhead.py [--config=configs/photos8to32.py] [--steps=300]
      [--save_every=50] [--log_every=20] [--config.a.b=VALUE ...]

Trains a config through `cdm train` and prints where the loop's time went: in
the step, waiting for data, writing log lines, saving (what holds the run up;
the rest is written in the background). Compiling is left out. Before that it
trains it with one save and one line, at the end, and prints the ratio of the
two times: on a CPU the background shares the cores with the step, which an
accelerator's host does not feel.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cdm.cli import main as cli
from cdm.training import watchdog

kept, enter = {}, watchdog.Watchdog.enter

def keep(self, phase, step):
  enter(self, phase, step)
  kept['watch'] = self
  # The first step compiles.
  if watchdog.STEP in self._past and 'compiling' not in kept:
    kept['compiling'] = self.seconds(watchdog.STEP)

watchdog.Watchdog.enter = keep
code = cli.main(json.loads(sys.argv[3]))
if code:
  sys.exit(code)
watch = kept['watch']
phases = {name: watch._seconds[name] for name in list(watch._seconds) if name}
phases[watchdog.STEP] -= kept['compiling']
phases['saves'] = len(watch._past[watchdog.SAVE])
open(sys.argv[2], 'w').write(json.dumps(phases))
"""


def train(folder, args, rest, *, save_every, log_every):
  """-> {phase: seconds, 'saves': number, 'bytes': of the last checkpoint}."""
  workdir = folder / f'every{save_every}'
  shutil.rmtree(workdir, ignore_errors=True)
  out = folder / 'phases.json'
  words = [
    *('train', f'--config={args.config}', f'--workdir={workdir}'),
    f'--config.train.num_steps={args.steps}',
    f'--config.train.save_every_steps={save_every}',
    f'--config.train.log_every_steps={log_every}',
    '--config.train.sample_every_steps=0',
    *rest,
  ]
  subprocess.run(
    [sys.executable, '-c', CHILD, str(ROOT), str(out), json.dumps(words)],
    cwd=ROOT,
    check=True,
    env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(folder / 'xla')},
  )
  last = workdir / 'checkpoints' / str(args.steps)
  size = sum(f.stat().st_size for f in last.rglob('*') if f.is_file())
  return json.loads(out.read_text(encoding='utf-8')) | {'bytes': size}


def show(found, steps):
  saves, size = found.pop('saves'), found.pop('bytes')
  total = sum(found.values())
  for phase, seconds in sorted(found.items(), key=lambda pair: -pair[1]):
    share, each = seconds / total, 1e3 * seconds / steps
    print(f'  {phase:28} {seconds:8.2f} s {share:8.2%} {each:8.2f} ms/step')
  print(f'  {saves} saves of {size / 1e6:.0f} MB, {steps} steps')
  return total


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--config', default='configs/photos8to32.py')
  parser.add_argument('--steps', type=int, default=300)
  parser.add_argument('--save_every', type=int, default=50)
  parser.add_argument('--log_every', type=int, default=20)
  args, rest = parser.parse_known_args()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    bare = train(
      folder, args, rest, save_every=10 * args.steps, log_every=args.steps
    )
    full = train(
      folder, args, rest, save_every=args.save_every, log_every=args.log_every
    )
  print(
    f'\na save every {args.save_every}, a line every {args.log_every} steps'
  )
  total = show(full, args.steps)
  print('one save and one line, at the end')
  print(f'\ntime with / without: {total / show(bare, args.steps):.3f}')


if __name__ == '__main__':
  main()
