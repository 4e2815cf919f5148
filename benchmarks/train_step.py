"""Measures a training step beside PyTorch with the same network, in turn.

  python benchmarks/train_step.py [--models=cpu22m,adm64,...] [--config=PATH]
      [--what=step|forward|both] [--batch=N] [--dtype=bfloat16|float32]
      [--torch_compile=both|no|yes] [--rounds=N] [--steps=N] [--out=FILE.jsonl]
      [--profile=DIR] [--config.a.b=VALUE ...]
  python benchmarks/train_step.py --smoke
  python benchmarks/train_step.py --out=FILE.jsonl --table

Before anything is timed, both networks get the same parameters and images and
their outputs and gradients are compared in float32; networks that differ are
not timed. Then the programs take turns, round by round, each in a process of
its own (`step_process.py`), and a table shows time, images per second, MFU,
the first call, the peak of memory and the ratios, whose spread tells how far
they can be trusted. --out appends a JSON line per program, with the compiler's
own counts of FLOPs and bytes too.

What is in a step is written in `step_of_cdm.py` and `step_of_torch.py`: the
whole step that `cdm train` runs, and a loss, gradient, clipping, fused Adam and
average in PyTorch. Both run on one device, the first that JAX has. PyTorch is
no dependency of cdm: it is looked for where the script runs, or in the Python
of --torch_python. A module of your own takes the place of the peer by
--torch_module=FILE.py:NAME; it is called like `torch_unet.TorchUNet`, and
its numbers are not compared.

On one GPU the frameworks share the memory; a batch that needs nearly all of it
is measured with --turns=apart, one framework after the other. --profile writes
a trace of some steps into a folder per model and prints the time by operation
(`op_times.py`). On a CPU a trace needs hooks in the program, so there the
program is compiled once more, with them, in a process of its own.
"""

import argparse
import contextlib
import datetime
import os
import pathlib
import signal
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import step_models, step_process, step_rows  # noqa: E402
from cdm.reporting import jsonl  # noqa: E402

# Differences of float32 networks with the same parameters: the largest of the
# output over its largest value, and of all gradients in norm; and the same of
# the parameter whose gradient differs most. Measured: 2e-6, 2e-6 and 1e-5 for
# the networks of `step_models.py`; a wrong epsilon or a wrong order of channels
# gives 1e-2 and more.
TOLERANCE = {'output': 5e-5, 'gradient': 5e-5, 'worst': 1e-3}
HERE = pathlib.Path(__file__).resolve().parent
# What `op_times.py` needs on a CPU; JAX reads it when it starts.
HOOKS = '--xla_cpu_enable_xprof_traceme=true'
PROFILED_STEPS = 3


def main(argv=None):
  args = parse(argv)
  if args.table:
    print(step_rows.table(jsonl.read(args.out)), end='')
    return 0
  # Processes are closed on the way out, and what has been measured is kept.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  rows, problems = [], []
  for name, config, batch, overrides in chosen(args):
    print(f'{name}: {config}', flush=True)
    with contextlib.ExitStack() as stack:
      try:
        bench = Bench(args, stack, name, config, batch, overrides, problems)
        for row in bench.rows():
          rows.append(row)
          if args.out:
            jsonl.append(args.out, [row])
      except step_process.Failed as error:
        problems.append(f'{name}, cdm: {error}')
        print(problems[-1], file=sys.stderr, flush=True)
  print(step_rows.table(rows), end='')
  return 1 if problems else 0


def chosen(args):
  """Yields (name, config, batch, overrides) of what is to be measured."""
  if args.config:
    yield args.config.stem, args.config, args.batch, args.overrides
  for name in args.models or ():
    model = step_models.MODELS[name]
    yield (
      name,
      step_models.CONFIGS / model.config,
      args.batch or model.batch,
      (*model.overrides, *args.overrides),
    )


class Bench:
  """The programs of one model, which are compared and then take turns."""

  def __init__(self, args, stack, name, config, batch, overrides, problems):
    self.args, self.stack, self.name = args, stack, name
    self.problems = problems
    self.job = {
      'config': str(config),
      'overrides': overrides,
      'batch': batch,
      'dtype': args.dtype,
      'tf32': args.tf32 == 'yes',
    }
    self.peers = [f for f in args.frameworks if f != step_rows.OURS]
    if args.torch_compile == 'yes':
      self.peers = ['torch.compile' for _ in self.peers]
    elif args.torch_compile == 'both' and self.peers:
      self.peers.append('torch.compile')
    self.checked = None
    # A process of its own, whose memory does not count as that of a step.
    first = self._cdm()
    self.about = first.ready
    try:
      self._compare(first)
    except step_process.Failed as error:
      self.peers = []
      self._say('torch', error)
    first.close()

  def rows(self):
    """Yields a row for each program, as soon as its rounds are over."""
    run = {
      'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'model': self.name,
      'turns': self.args.turns,
      'steps_of_a_round': self.args.steps,
      'layout': self.args.torch_layout,
      'tf32': self.job['tf32'],
      'checked': self.checked,
      'torch_module': self.args.torch_module,
    }
    names = [f for f in self.args.frameworks if f == step_rows.OURS]
    names += self.peers
    if self.args.turns == 'interleaved':
      yield from self._turns(run, names)
    else:
      for name in names:
        yield from self._turns(run, [name])

  def _turns(self, run, names):
    """Runs programs in turn; yields their rows."""
    workers = {}
    for name in names:
      with self._problem(name):
        workers[name] = worker = self._worker(name)
        count, ours = worker.ready['parameters'], self.about['parameters']
        if count != ours:
          print(f'  {name} has {count} parameters; ours has {ours}.')
    for what in self.args.what:
      yield from self._rounds(run, workers, what)
    if self.args.profile and step_rows.OURS in workers:
      with self._problem('cdm, profile'):
        print(self._profile(workers[step_rows.OURS]))
    for worker in workers.values():
      worker.close()

  def _profile(self, worker):
    """Traces some steps of ours; returns the tables of their time."""
    folder = self.args.profile / self.name
    folder.mkdir(parents=True, exist_ok=True)
    if self.about['platform'] == 'cpu':
      worker = self._cdm(hooks=True)
      worker.ask(do='prepare', what=self.args.what[-1])
    answer = worker.ask(do='profile', folder=str(folder), steps=PROFILED_STEPS)
    return answer['table']

  def _rounds(self, run, workers, what):
    prepared, rounds = {}, {}
    for name, worker in workers.items():
      with self._problem(f'{name}, {what}'):
        prepared[name] = worker.ask(do='prepare', what=what)
        rounds[name] = []
    for number in range(1 + self.args.rounds):  # The first is not counted.
      for name in list(rounds):
        steps = self.args.steps if number else 1
        try:
          spent = workers[name].ask(do='run', steps=steps)['seconds']
        except step_process.Failed as error:
          self._say(f'{name}, {what}', error)
          del rounds[name]
          continue
        if number:
          rounds[name].append(spent / steps)
    for name in rounds:
      yield step_rows.row(
        run=run,
        about=self.about,
        framework=name,
        what=what,
        ready=workers[name].ready,
        prepared=prepared[name],
        rounds=rounds[name],
        peak_bytes=workers[name].ask(do='peak')['peak_bytes'],
      )

  def _compare(self, first):
    """Refuses to go on if the two networks do not compute the same."""
    if not self.peers or self.args.torch_module or self.args.no_check:
      return
    with tempfile.TemporaryDirectory(prefix='cdm-step-') as folder:
      path = str(pathlib.Path(folder) / 'numbers.npz')
      first.ask(do='numbers', path=path)
      first.close()
      peer = self._torch(compiled=False)
      found = peer.ask(do='compare', path=path)
      peer.close()
    wrong = [n for n, most in TOLERANCE.items() if not found[n] <= most]
    print(
      f'  the networks differ by {found["output"]:.1e} in their output and '
      f'{found["gradient"]:.1e} in their gradient, at most '
      f'{found["worst"]:.1e} in that of {found["worst_name"]}',
      flush=True,
    )
    if wrong:
      raise step_process.Failed(
        f'its network differs from ours in {", ".join(wrong)} by more than '
        f'{TOLERANCE}; it is not timed.'
      )
    self.checked = found

  def _worker(self, name):
    if name == step_rows.OURS:
      return self._cdm()
    return self._torch(compiled=name == 'torch.compile')

  def _cdm(self, *, hooks=False):
    environment = {}
    if hooks:
      given = os.environ.get('XLA_FLAGS', '')
      environment['XLA_FLAGS'] = f'{given} {HOOKS}'.strip()
    if self.args.turns == 'interleaved':  # PyTorch needs memory as well.
      environment['XLA_PYTHON_CLIENT_PREALLOCATE'] = os.environ.get(
        'XLA_PYTHON_CLIENT_PREALLOCATE', 'false'
      )
    return self._start('step_of_cdm.py', self.job, environment=environment)

  def _torch(self, *, compiled):
    job = {
      'about': self.about,
      'compiled': compiled,
      'layout': self.args.torch_layout,
      'tf32': self.job['tf32'],
      'module': self.args.torch_module,
    }
    # Otherwise a second run would not compile.
    environment = {'TORCHINDUCTOR_FORCE_DISABLE_CACHES': '1'}
    return self._start(
      'step_of_torch.py',
      job,
      python=self.args.torch_python,
      environment=environment,
    )

  def _start(self, script, job, **options):
    worker = step_process.Worker(HERE / script, job, **options)
    self.stack.callback(worker.close)
    return worker

  @contextlib.contextmanager
  def _problem(self, who):
    """Notes that a program failed, and goes on with the others."""
    try:
      yield
    except step_process.Failed as error:
      self._say(who, error)

  def _say(self, who, error):
    self.problems.append(f'{self.name}, {who}: {error}')
    print(self.problems[-1], file=sys.stderr, flush=True)


def parse(argv):
  """Returns the flags, checked."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--models', type=_names, help=', '.join(step_models.MODELS))
  add('--config', type=pathlib.Path, help='config of any diffusion model')
  add('--what', choices=('step', 'forward', 'both'), default='step')
  add('--batch', type=_count, help="images of a step; by default the model's")
  add('--dtype', choices=('bfloat16', 'float32'), help="default: the config's")
  add('--frameworks', type=_frameworks, default=('cdm', 'torch'))
  add('--torch_compile', choices=('both', 'no', 'yes'), default='both')
  add(
    '--torch_layout',
    choices=('channels_last', 'contiguous'),
    default='channels_last',
  )
  add('--torch_module', metavar='FILE.py:NAME')
  add('--torch_python', default=sys.executable, metavar='PYTHON')
  add('--tf32', choices=('yes', 'no'), default='yes', help='float32 on GPUs')
  add('--turns', choices=('interleaved', 'apart'), default='interleaved')
  add('--rounds', type=_count, default=7)
  add('--steps', type=_count, default=3, help='steps of a round')
  add('--no_check', action='store_true', help='compare no numbers first')
  add('--out', type=pathlib.Path, metavar='FILE.jsonl')
  add('--table', action='store_true', help='print the table of --out')
  add('--profile', type=pathlib.Path, metavar='DIR')
  add('--smoke', action='store_true', help='the model `small`, two rounds')
  args, rest = parser.parse_known_args(argv)
  args.overrides = []
  for word in rest:
    key, equals, value = word.partition('=')
    if not key.startswith('--config.') or not equals:
      parser.error(f'unknown argument {word}')
    args.overrides.append((key.removeprefix('--config.'), value))
  if args.table and not args.out:
    parser.error('--table needs --out=FILE.jsonl, whose rows it shows.')
  args.what = ('forward', 'step') if args.what == 'both' else (args.what,)
  if args.smoke:
    args.models, args.config = ['small'], None
    args.rounds, args.steps = 2, 1
  elif not args.models and not args.config:
    args.models = ['cpu22m']
  return args


def _names(text):
  names = text.split(',')
  for name in names:
    if name not in step_models.MODELS:
      raise argparse.ArgumentTypeError(
        f'{name!r} is not a model; known are {", ".join(step_models.MODELS)}. '
        'Give any other as --config=PATH.'
      )
  return names


def _frameworks(text):
  names = tuple(text.split(','))
  if not set(names) <= {'cdm', 'torch'}:
    raise argparse.ArgumentTypeError(
      f'{text!r}; give cdm, torch, or cdm,torch.'
    )
  return names


def _count(text):
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(
      f'{text!r} is not a whole number of at least 1.'
    )
  return int(text)


if __name__ == '__main__':
  sys.exit(main())
