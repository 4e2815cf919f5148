"""What is planned is what runs, and its numbers are those of closed forms."""

import json
import subprocess
import sys
from unittest import mock

import jax
import pytest
from support import smoke_runs

from cdm.config import loader, sampler_section, stage
from cdm.distributed import device_specs
from cdm.models import flops
from cdm.planning import (
  compilation,
  compile_process,
  lowering,
  plan_text,
  roofline,
)

SMOKE, SMOKE_SR = (
  smoke_runs.CONFIGS / f'{n}.py' for n in ('smoke', 'smoke_sr')
)
# The first is libtpu 0.0.42.1's, of the training step of configs/smoke.py with
# a million images on v3:2x2; the second is the longer form of other versions.
SHORT = [
  (
    'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required '
    'for HLO temporaries (20.76G) exceeds available HBM (15.48G).',
    (round(20.76 * 2**30), round(15.48 * 2**30)),
  ),
  (
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in '
    'memory space hbm. Used 20.07G of 15.48G hbm. Exceeded hbm capacity by '
    '4.59G.\n\nTotal hbm usage >= 20.59G:\n    reserved        530.00M',
    (round(20.07 * 2**30), round(15.48 * 2**30)),
  ),
]


def request(
  path=SMOKE,
  *,
  topology='cpu:8',
  step='train',
  keep=None,
  quick=False,
  **changes,
):
  pairs = smoke_runs.SMALL | {
    k.replace('__', '.'): v for k, v in changes.items()
  }
  return {
    'config': str(path),
    'overrides': [[key, str(value)] for key, value in pairs.items()],
    'topology': topology,
    'step': step,
    'batch_size': 8,
    'quick': quick,
    'keep': keep and str(keep),
    'fresh': False,
  }


@pytest.fixture(scope='module')
def keep(tmp_path_factory):
  return tmp_path_factory.mktemp('keep')


@pytest.fixture(scope='module')
def split(keep):
  """The training step, its state over 4 devices, in two microbatches."""
  return compilation.measure(
    request(
      keep=keep,
      mesh__fsdp=4,
      mesh__data=2,
      train__batch_size=64,
      train__accumulation=2,
    )
  )


@pytest.fixture(scope='module')
def whole(keep):
  """The training step, a copy of the state on each of two devices."""
  return compilation.measure(
    request(topology='cpu:2', keep=keep, train__batch_size=32)
  )


@pytest.fixture(scope='module')
def sampling():
  return compilation.measure(request(SMOKE_SR, topology='cpu:2', step='sample'))


def test_a_plan_is_json_with_the_agreed_fields(whole):
  row = json.loads(json.dumps(roofline.row(whole, {})))
  assert row['config'] == str(SMOKE) and row['topology'] == 'cpu:2'
  assert row['fits'] is True and row['missing_bytes'] == 0
  assert row['devices'] == row['chips'] == 2
  for name in (
    'peak_bytes_per_device',
    'device_bytes',
    'parameters',
    'model_flops_per_step',
    'compiled_flops_per_step',
    'compile_seconds',
  ):
    assert row[name] > 0, name
  # On a CPU the peak is a matrix product's speed, measured there.
  seconds = row['compiled_flops_per_step'] / row['cpu_flops']
  assert row['estimate']['step_seconds'] == pytest.approx(seconds)
  assert row['estimate']['bound_by'] == 'compute'
  assert 'optimal_seconds' not in json.dumps(row)


def overrides():
  return [(key, str(value)) for key, value in smoke_runs.SMALL.items()]


def test_a_copy_of_the_state_takes_four_bytes_a_number(whole):
  n = 4 * whole['parameters']
  parts = whole['memory']
  assert parts['parameters'] == parts['ema'] == n
  assert parts['moments'] - 2 * n in range(0, 17), 'two moments, a counter'
  # 16 images of 8x8 pixels, a byte each of 3 channels, and int32 labels.
  assert parts['batch'] == 16 * (8 * 8 * 3 + 4)


def test_every_average_is_counted():
  section = [
    ('ema.power_stds', '(0.05, 0.1)'),
    ('ema.tracks', "('decay=0.9',)"),
  ]
  c = loader.load(SMOKE, overrides() + section)
  planned = lowering.train_step(c, jax.devices()[:1])
  assert planned.arguments['ema'] == 4 * planned.arguments['parameters']


def test_the_parts_of_memory_add_up_to_the_peak(whole):
  assert sum(whole['memory'].values()) == whole['peak_bytes_per_device']
  # Shapes and compiler agree on what goes in: a CPU has no tiles to fill.
  assert abs(whole['memory']['padding']) < 64


def test_over_four_devices_a_quarter_of_what_divides_stays(split, whole):
  parts = split['memory']
  assert parts['parameters'] == parts['ema']
  share = parts['parameters'] / whole['memory']['parameters']
  assert 0.25 <= share < 0.35, 'vectors are not split'
  assert (split['mesh'], split['batch_per_device']) == (
    {'data': 2, 'fsdp': 4, 'tensor': 1},
    8,
  )


def test_a_step_is_three_forward_passes_of_every_image(split):
  loaded = loader.load(SMOKE, overrides())
  built = stage.stage(loaded)
  forward = flops.trace(built.net, 8, False)[1]
  assert split['model_flops_per_step'] == 3 * forward * 64
  # Padding is work to us and none to XLA, what is not multiplied the reverse.
  assert 0.5 < split['model_to_compiled_flops'] < 1.5


def test_microbatches_cost_what_one_batch_costs(split, whole):
  assert split['accumulation'] == 2
  per_image = (
    row['compiled_flops_per_step'] / row['batch_size'] for row in (split, whole)
  )
  mine, expected = per_image
  assert mine == pytest.approx(expected, rel=0.2)


def test_gradients_are_the_only_thing_that_copies_exchange(whole):
  table = whole['collectives']
  assert set(table) == {'all-reduce'}
  gradients = 4 * whole['parameters']
  reduced = table['all-reduce']['payload_bytes']
  assert gradients <= reduced < gradients + 1024, 'and a few scalars'


def test_split_parameters_are_gathered(split):
  assert split['collectives']['all-gather']['payload_bytes'] > 0


def test_sampling_counts_every_step_of_the_grid(sampling):
  loaded = loader.load(SMOKE_SR, overrides())
  built = stage.stage(loaded)
  forward = flops.trace(built.net, loaded.pipeline.image_size, True)[1]
  steps = len(sampler_section.grid(built.schedule, loaded.sampler.grid)) - 1
  assert sampling['network_evaluations'] == steps > 1
  assert sampling['model_flops_per_step'] == steps * 8 * forward
  assert 0.5 < sampling['model_to_compiled_flops'] < 1.5
  assert sampling['num_steps'] is None
  assert sampling['memory']['ema'] == 4 * sampling['parameters']


def test_what_was_compiled_once_is_kept(whole, keep, monkeypatch):
  monkeypatch.setattr(compilation, 'compile_now', None)  # would fail if called
  again = compilation.measure(
    request(topology='cpu:2', keep=keep, train__batch_size=32)
  )
  assert again.pop('compiled_before') and not whole['compiled_before']
  assert again.pop('cpu_flops') > 1e9  # measured each time
  measured = ('compiled_before', 'cpu_flops')
  assert again == {k: v for k, v in whole.items() if k not in measured}


def test_gpus_are_planned_with_the_program_for_as_many_cpus(
  whole, keep, monkeypatch
):
  monkeypatch.setattr(compilation, 'compile_now', None)  # would fail if called
  facts = compilation.measure(
    request(topology='l4:2', keep=keep, train__batch_size=32)
  )
  assert facts['fits'] and facts['device_bytes'] == int(0.95 * 24e9)
  assert facts['peak_bytes_per_device'] == whole['peak_bytes_per_device']
  row = roofline.row(facts, {'l4': 0.8})
  flops = whole['compiled_flops_per_step'] / 2
  assert row['estimate']['compute_seconds'] == pytest.approx(flops / 121e12)
  assert row['estimate']['dollars'] > 0
  assert 'compiled for CPUs in place of GPUs' in plan_text.plan(row)


@pytest.mark.parametrize('text', ['{"compiled": ', '[]', '{"compiled": true}'])
def test_a_damaged_result_is_compiled_again(tmp_path, capsys, text):
  path = tmp_path / 'x.json'
  path.write_text(text, encoding='utf-8')
  assert compilation.read_kept(path) is None
  assert 'x.json is damaged' in capsys.readouterr().err


@pytest.mark.parametrize(
  'change', [{'train__batch_size': 16}, {'quick': True}, 'flags']
)
def test_another_program_or_effort_is_not_taken_for_it(
  keep, change, monkeypatch
):
  if change == 'flags':
    monkeypatch.setenv('JAX_OPTIMIZATION_LEVEL', 'O1')
    change = {}
  same = {'topology': 'cpu:2', 'keep': keep, 'train__batch_size': 32}
  other = request(**same | change)
  monkeypatch.setattr(compilation, 'compile_now', lambda *_, **__: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    compilation.measure(other)


def test_least_effort_is_asked_of_the_compiler_and_told():
  lowered = mock.Mock()
  lowered.compile.side_effect = jax.errors.JaxRuntimeError(SHORT[0][0])
  compilation.compile_now(lowered, 2, quick=True)
  asked = compilation.LEAST_EFFORT
  lowered.compile.assert_called_once_with(compiler_options=asked[0])
  # A compiler that does not know an option is asked for the next one.
  unknown = jax.errors.JaxRuntimeError(
    "INVALID_ARGUMENT: No such compile option: 'x'"
  )
  for known in range(len(asked) + 1):
    lowered.compile.side_effect = [unknown] * known + [
      jax.errors.JaxRuntimeError(SHORT[0][0])
    ]
    lowered.compile.reset_mock()
    compilation.compile_now(lowered, 2, quick=True)
    assert [
      call.kwargs['compiler_options'] for call in lowered.compile.mock_calls
    ] == [*asked, None][: known + 1]
  found = compilation.measure(request(topology='cpu:2', quick=True))
  assert found['quick'] and found['fits']
  assert '(--quick): memory is approx' in plan_text.plan(
    roofline.row(found, {})
  )


@pytest.mark.parametrize(('message', 'expected'), SHORT)
def test_a_program_that_does_not_fit_says_how_much_it_needs(message, expected):
  assert compilation.out_of_memory(message) == expected


def test_what_a_tpus_compiler_has_placed_needs_no_more_than_there_is():
  tpu, cpu = device_specs.parse('v3:2x2'), device_specs.parse('cpu:8')
  placed = {'compiled': True, 'needed_bytes': 16}
  refused = placed | {'compiled': False}
  assert compilation.peak_of(placed, tpu, 15) == 15
  assert compilation.peak_of(placed, tpu, 17) == 16
  assert compilation.peak_of(refused, tpu, 15) == 16
  assert compilation.peak_of(placed, cpu, 15) == 16


def test_another_failure_is_not_taken_for_a_lack_of_memory():
  assert compilation.out_of_memory('INTERNAL: RET_CHECK failure (hbm)') is None


def test_not_to_fit_is_a_result():
  class Refused:
    def compile(self, compiler_options=None):
      raise compilation.jax.errors.JaxRuntimeError(SHORT[0][0])

  facts = compilation.compile_now(Refused(), 8)
  assert not facts['compiled'] and facts['needed_bytes'] == SHORT[0][1][0]
  assert facts['message'] == SHORT[0][0]


def test_any_other_failure_to_compile_is_raised():
  class Broken:
    def compile(self, compiler_options=None):
      raise compilation.jax.errors.JaxRuntimeError('INTERNAL: no')

  with pytest.raises(compilation.jax.errors.JaxRuntimeError, match='INTERNAL'):
    compilation.compile_now(Broken(), 8)


def test_a_cascade_is_refused_by_name():
  path = smoke_runs.CONFIGS / 'smoke_cascade.py'
  asked = {**request(path, step='sample'), 'overrides': []}
  with pytest.raises(ValueError, match='is a cascade.*smoke_sr'):
    compilation.measure(asked)


def test_more_cpus_than_there_are_is_refused():
  with pytest.raises(ValueError, match='has 8 CPU devices'):
    compilation.measure(request(topology='cpu:16'))


def test_the_text_of_a_plan_has_its_numbers(split, whole):
  lines = plan_text.plan(roofline.row(whole, {})).splitlines()
  assert any(line.startswith('  FITS: ') for line in lines)
  parts = [line.split() for line in lines]
  assert [
    'parameters',
    *plan_text.size(4 * whole['parameters']).split(),
  ] in parts
  assert max(map(len, lines)) <= 100
  assert 'in 2 microbatches' in plan_text.head(split)


def test_a_slice_of_tpus_is_planned_without_one(keep, monkeypatch):
  """The real compiler, where it is installed."""
  pytest.importorskip('libtpu')
  for name in ('TPU_SKIP_MDS_QUERY', 'ALLOW_MULTIPLE_LIBTPU_LOAD'):
    monkeypatch.setenv(name, '1')
  piece = device_specs.parse('v5e:2x2')
  found = compilation.measure(
    request(topology='v5e:2x2', keep=keep, train__batch_size=8)
  )
  assert found['fits'] and found['device_bytes'] == piece.chip.usable_bytes
  assert 0.2 < found['model_to_compiled_flops'] < 2.0
  row = roofline.row(found, {})
  assert row['estimate']['step_seconds'] > 0
  assert 'ESTIMATE' in plan_text.plan(row)


@pytest.mark.parametrize('asker', ['waits', 'is killed'])
def test_the_process_that_compiles_ends_with_the_one_that_asked(asker):
  process = subprocess.Popen(
    [sys.executable, '-m', 'cdm.planning.compilation'],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    env=compile_process.child_environment(),
    encoding='utf-8',
  )
  process.stdin.write(json.dumps(request(topology='cpu:1')) + '\n')
  process.stdin.flush()
  if asker == 'is killed':
    process.stdin.close()
  answer = process.stdout.read()
  assert bool(answer) == (asker == 'waits')
  assert process.wait() == (0 if answer else 1)
  process.stdin.close()
  process.stdout.close()
