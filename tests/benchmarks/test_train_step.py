"""`benchmarks/train_step.py`: programs take turns, and rows tell all of it.

The numbers of the two networks are compared in test_torch_unet.py.
"""

import json
import pathlib
import textwrap

import jax
import pytest

from benchmarks import (
  step_models,
  step_of_cdm,
  step_process,
  step_rows,
  train_step,
)
from cdm.models import flops
from cdm.reporting import jsonl
from cdm.training import program

ABOUT = {
  'batch': 8,
  'image_size': 16,
  'dtype': 'float32',
  'forward_flops_per_image': 10,
  'parameters': 7,
  'peak_flops': 960.0,
  'platform': 'cpu',
  'device': 'cpu',
  'commit': 'abc',
  'versions': {'jax': '1'},
}


def row(framework, rounds, **run):
  return step_rows.row(
    run={'time': 'now', 'model': 'small'} | run,
    about=ABOUT,
    framework=framework,
    what='step',
    ready={'parameters': 7, 'device': 'cpu', 'versions': {}},
    prepared={'first_seconds': 3.5},
    rounds=rounds,
    peak_bytes=2**30,
  )


def test_a_row_has_the_median_and_the_rates_of_it():
  """3 passes of 8 images of 10 FLOPs in 0.5 s: 480 of 960 FLOP/s."""
  one = row('cdm', [0.4, 0.5, 2.0])
  assert one['step_seconds'] == 0.5
  assert (one['least_seconds'], one['most_seconds']) == (0.4, 2.0)
  assert one['images_per_second'] == 16
  assert one['compile_seconds'] == 3.0
  assert one['mfu'] == 0.5


def test_ratios_are_of_programs_in_the_same_round():
  """The machine is three times as slow in the last round, for both."""
  ours, theirs = row('cdm', [1.0, 2.0, 6.0]), row('torch', [1.5, 2.4, 9.6])
  assert step_rows.ratios(ours, theirs) == pytest.approx((1.5, 1.2, 1.6))
  table = step_rows.table([ours, theirs, row('cdm', [1.0], time='later')])
  assert '| 1.50 (1.20 to 1.60) |' in table.splitlines()[3]
  assert table.splitlines()[2].endswith('| – |')
  with pytest.raises(ValueError):
    step_rows.ratios(ours, row('torch', [1.0]))


# --- Processes

STAND_IN = """
  import os, sys
  from benchmarks import step_process

  def start(*, name):
    if name == 'unwilling':
      raise ValueError('not today\\nand this is not said')

    def double(x):
      print('a library prints this')
      return {'x': 2 * x}

    def die():
      print('the last words', file=sys.stderr, flush=True)
      os._exit(3)

    return {'ready': lambda: {'name': name}, 'double': double, 'die': die}

  step_process.serve(start)
"""


@pytest.fixture
def stand_in(tmp_path):
  path = tmp_path / 'stand_in.py'
  path.write_text(textwrap.dedent(STAND_IN), encoding='utf-8')
  return path


def test_a_process_answers_and_tells_how_it_ended(stand_in):
  worker = step_process.Worker(stand_in, {'name': 'willing'})
  assert worker.ready == {'name': 'willing'}
  assert worker.ask(do='double', x=4) == {'x': 8}
  with pytest.raises(step_process.Failed, match='TypeError'):
    worker.ask(do='double', y=4)
  assert worker.ask(do='double', x=5) == {'x': 10}
  with pytest.raises(
    step_process.Failed, match=r'exit code 3\): the last words'
  ):
    worker.ask(do='die')
  worker.close()
  worker.close()


def test_a_process_may_refuse_its_job(stand_in):
  with pytest.raises(step_process.Failed, match='ValueError: not today$'):
    step_process.Worker(stand_in, {'name': 'unwilling'})
  with pytest.raises(step_process.Failed, match='no/python cannot be started'):
    step_process.Worker(stand_in, {}, python='no/python')


def test_memory_that_is_freed_does_not_count_in_the_next_peak():
  held = bytearray(64 * 2**20)
  before = step_process.peak_bytes()
  assert before > len(held)
  del held
  step_process.forget_peak()
  assert 0 < step_process.peak_bytes() <= before


# --- Turns


class Fake:
  """A process that notes its turns; no framework runs."""

  turns, lives, flags = [], [], []  # requests; starts and ends; XLA_FLAGS
  output, broken, parameters = 1e-6, (), {}

  def __init__(self, script, job, *, python=None, environment=None):
    self.job, self.name = job, 'cdm' if 'of_cdm' in str(script) else 'torch'
    if job.get('compiled'):
      self.name = 'torch.compile'
    if f'{self.name} starts' in Fake.broken:
      raise step_process.Failed('there is none')
    Fake.lives.append((self.name, 'start'))
    Fake.flags.append((environment or {}).get('XLA_FLAGS'))
    self.ready = ABOUT | {
      'parameters': Fake.parameters.get(self.name, ABOUT['parameters'])
    }

  def ask(self, *, do, **given):
    Fake.turns.append((self.name, do, *given.values()))
    if f'{self.name} {do}' in Fake.broken:
      raise step_process.Failed('no memory')
    return {
      'numbers': {},
      'compare': {
        'output': Fake.output,
        'gradient': 1e-6,
        'worst': 1e-6,
        'worst_name': 'conv_in.weight',
      },
      'prepare': {'first_seconds': 9.0},
      'run': {'seconds': 2.0 * given.get('steps', 0)},
      'peak': {'peak_bytes': 5},
      'profile': {'table': 'the table of operations'},
    }[do]

  def close(self):
    Fake.lives.append((self.name, 'close'))


@pytest.fixture
def fakes(monkeypatch):
  monkeypatch.setattr(step_process, 'Worker', Fake)
  monkeypatch.setattr(train_step.signal, 'signal', lambda *args: None)
  for name, value in dict(
    turns=[], lives=[], flags=[], output=1e-6, broken=(), parameters={}
  ).items():
    monkeypatch.setattr(Fake, name, value)
  return Fake


def test_programs_take_turns_and_rows_are_kept(fakes, tmp_path, capsys):
  out = tmp_path / 'rows.jsonl'
  code = train_step.main(
    ['--models=small', '--rounds=2', '--steps=3', f'--out={out}']
  )
  assert code == 0
  names = ['cdm', 'torch', 'torch.compile']
  # First the numbers are compared; one round is not counted.
  assert [t[:2] for t in fakes.turns[:2]] == [
    ('cdm', 'numbers'),
    ('torch', 'compare'),
  ]
  assert fakes.turns[2:14] == [
    *((name, 'prepare', 'step') for name in names),
    *((name, 'run', steps) for steps in (1, 3, 3) for name in names),
  ]
  rows = jsonl.read(out)
  assert [r['framework'] for r in rows] == names
  assert all(r['round_seconds'] == [2.0, 2.0] for r in rows)
  assert all(r['checked']['output'] == 1e-6 for r in rows)
  shown = capsys.readouterr().out
  assert step_rows.table(rows) in shown
  train_step.main([f'--out={out}', '--table'])
  assert capsys.readouterr().out == step_rows.table(rows)


def test_frameworks_may_run_apart(fakes):
  train_step.main(
    ['--models=small', '--rounds=1', '--turns=apart', '--torch_compile=no']
  )
  run = [t[0] for t in fakes.turns if t[1] == 'run']
  assert run == ['cdm', 'cdm', 'torch', 'torch']
  # The first process of each is that which compares.
  second = fakes.lives.index(('cdm', 'start'), 1)
  lives = fakes.lives[second:]
  assert lives.index(('cdm', 'close')) < lives.index(('torch', 'start'))


def test_networks_that_differ_are_not_timed(fakes, capsys):
  fakes.output = 1e-2
  assert train_step.main(['--models=small', '--rounds=1']) == 1
  assert {t[0] for t in fakes.turns if t[1] == 'run'} == {'cdm'}
  assert 'differs from ours in output' in capsys.readouterr().err


def test_a_peer_that_fails_leaves_ours(fakes, tmp_path, capsys):
  out = tmp_path / 'rows.jsonl'
  fakes.broken = ('torch starts',)
  assert train_step.main(['--models=small', f'--out={out}']) == 1
  assert [r['framework'] for r in jsonl.read(out)] == ['cdm']
  fakes.broken = ('torch.compile prepare',)
  assert train_step.main(['--models=small', f'--out={out}']) == 1
  frameworks = [r['framework'] for r in jsonl.read(out)]
  assert frameworks == ['cdm', 'cdm', 'torch']
  assert 'small, torch.compile, step: no memory' in capsys.readouterr().err


def test_a_module_of_another_size_is_named(fakes, capsys):
  fakes.parameters = {'torch': 8}
  train_step.main(
    ['--models=small', '--torch_module=a.py:Net', '--torch_compile=no']
  )
  assert 'compare' not in {t[1] for t in fakes.turns}
  assert 'has 8 parameters; ours has 7' in capsys.readouterr().out


def test_on_a_cpu_the_program_that_is_traced_has_hooks(
  fakes, tmp_path, monkeypatch, capsys
):
  """It is compiled once more for that; on a GPU the same one is traced."""
  monkeypatch.delenv('XLA_FLAGS')
  arguments = ['--models=small', '--frameworks=cdm', f'--profile={tmp_path}']
  train_step.main(arguments)
  profiled = ('cdm', 'profile', str(tmp_path / 'small'))
  assert fakes.turns[-2:] == [
    ('cdm', 'prepare', 'step'),
    (*profiled, train_step.PROFILED_STEPS),
  ]
  assert fakes.flags == [None, None, train_step.HOOKS]
  assert 'the table of operations' in capsys.readouterr().out

  monkeypatch.setitem(ABOUT, 'platform', 'gpu')
  train_step.main(arguments)
  assert fakes.turns[-2:] == [
    ('cdm', 'peak'),
    (*profiled, train_step.PROFILED_STEPS),
  ]


@pytest.mark.parametrize(
  'argument, message',
  [
    ('--models=small,adm65', "'adm65' is not a model; known are small, cpu22m"),
    ('--frameworks=jax', 'give cdm, torch, or cdm,torch'),
    ('--rounds=0', 'not a whole number of at least 1'),
    ('--nonsense', 'unknown argument --nonsense'),
    ('--table', '--table needs --out'),
  ],
)
def test_wrong_arguments_are_named(argument, message, capsys):
  with pytest.raises(SystemExit):
    train_step.main([argument])
  assert message in capsys.readouterr().err


# --- Models and our process


@pytest.mark.parametrize(
  'name, expected',
  [
    ('small', 218_844),  # the header of configs/smoke_sr.py
    ('cpu22m', 22_303_427),
    ('adm64', 295_904_454),  # [ADM]: 295.9M
    ('cdm64to256', 617_630_467),  # the headers of these configs
    ('sr3_16to128', 560_719_107),
  ],
)
def test_a_model_is_the_network_of_its_name(name, expected):
  model = step_models.MODELS[name]
  c = step_models.load(
    step_models.CONFIGS / model.config,
    model.overrides,
    batch=model.batch,
    dtype='bfloat16',
  )
  assert c.train.batch_size == model.batch
  params, _ = program.stage.stage(c).trace()
  assert flops.count_parameters(params) == expected


def test_a_config_without_diffusion_is_refused():
  path = step_models.CONFIGS / 'smoke_regression.py'
  with pytest.raises(ValueError, match="method.kind is 'regression'"):
    step_models.load(path, (), batch=None, dtype=None)


def test_what_is_timed_is_the_step_of_training():
  """Every call makes one update, and starts from the state of the last."""
  c = step_models.load(
    step_models.CONFIGS / 'smoke.py', (), batch=2, dtype=None
  )
  training = program.assemble(c, devices=jax.local_devices()[:1])
  bench = step_of_cdm.Bench(c, training)
  about = json.loads(json.dumps(bench.describe()))
  assert about['parameters'] == 209_267  # the header of the config
  assert bench.prepare('step')['planned_bytes'] > 16 * about['parameters']
  assert bench.run(2)['seconds'] > 0
  scalars, state = bench.calls()
  assert state.step == 4
  assert {'loss', 'grad_norm', 'learning_rate'} <= set(scalars)


def test_the_script_is_described_where_speed_is():
  root = pathlib.Path(train_step.__file__).parents[1]
  page = (root / 'docs' / 'performance.md').read_text(encoding='utf-8')
  section = page.split('\n## A training step beside PyTorch\n')[1]
  assert 'benchmarks/train_step.py' in section.split('\n## ')[0]
