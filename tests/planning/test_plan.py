"""From a slice's name to a verdict, a time, a price; and `cdm plan` itself."""

import importlib.util
import io
import json
import re
import types

import pytest
from support import smoke_runs

from cdm.config import loader
from cdm.data import shell_commands
from cdm.distributed import device_specs
from cdm.planning import (
  compilation,
  compile_process,
  evaluation_share,
  plan_text,
  roofline,
  search,
)
from cdm.training import program

SMOKE = f'--config={smoke_runs.CONFIGS / "smoke.py"}'
SMALL = [f'--config.{key}={value}' for key, value in smoke_runs.SMALL.items()]


def facts(topology='v5e:2x2', **changes):
  """What `measure` finds, of round numbers."""
  piece = device_specs.parse(topology)
  return {
    'config': 'c.py',
    'overrides': [],
    'step': 'train',
    'topology': topology,
    'devices': piece.devices,
    'chips': piece.chips,
    'mesh': {'data': piece.devices, 'fsdp': 1, 'tensor': 1},
    'batch_size': 64,
    'batch_per_device': 64 / piece.devices,
    'accumulation': 1,
    'parameters': 10**6,
    'num_steps': 3600,
    'evaluation_steps': 0.0,
    'network_evaluations': 1,
    'fits': True,
    'peak_bytes_per_device': 8 * 2**30,
    'device_bytes': 16 * 2**30,
    'reserved_bytes': 0,
    'missing_bytes': 0,
    'memory': {'parameters': 8 * 2**30},
    'model_flops_per_step': 10**12,
    'compiled_flops_per_step': 2e12,
    'model_to_compiled_flops': 0.5,
    'bytes_moved_per_device': 1e6,
    'collectives': {},
    'compiler_rematerialized': 0,
    'compiler': 'libtpu 1.0',
    'quick': False,
    'compile_seconds': 61.0,
    'compiled_before': False,
    **changes,
  }


# Slices.


@pytest.mark.parametrize(
  ('topology', 'chips', 'count'),
  [
    ('v3:8x16', 128, 256),  # two devices to a chip
    ('v4:4x4x8', 128, 128),
    ('v5e:16x16', 256, 256),
    ('v5p:4x4x8', 128, 128),
    ('v6e:16x16', 256, 256),
    ('tpu7x:4x4x8', 128, 256),
    ('cpu:8', 8, 8),
    ('h100:8', 8, 8),
    ('a100-80gb:1', 1, 1),
    ('v3:8x16:2', 256, 512),
    ('h100:8:4', 32, 32),
  ],
)
def test_a_slice_has_its_chips_and_devices(topology, chips, count):
  piece = device_specs.parse(topology)
  assert (piece.chips, piece.devices) == (chips, count)


@pytest.mark.parametrize(
  ('topology', 'complaint'),
  [
    ('v5:4x4', 'is not a known kind of device.*Did you mean v5'),
    ('gpu:8', 'Known are v2, v3, v4, v5e, v5p, v6e, tpu7x, t4, .*, cpu'),
    ('v5e:16', 'written v5e:AxB'),
    ('v4:4x4', 'written v4:AxBxC'),
    ('v5e:0x4', 'written v5e:AxB'),
    ('cpu:two', 'written cpu:N'),
    ('h100:2x4', 'written h100:N, devices'),
    ('v5e', 'written v5e:AxB'),
    ('v5e:4x4:0', "'0' is not a number of slices; two .* v5e:4x4:2"),
    ('v5e:4x4:', 'is not a number of slices'),
  ],
)
def test_a_misspelt_slice_is_refused_by_its_form(topology, complaint):
  with pytest.raises(ValueError, match=complaint):
    device_specs.parse(topology)


def test_the_number_of_slices_is_given_once():
  assert device_specs.with_slices('h100:8', 4) == 'h100:8:4'
  assert device_specs.with_slices('h100:8:2', None) == 'h100:8:2'
  assert device_specs.with_slices('h100:8', 1) == 'h100:8'
  with pytest.raises(ValueError, match='give one of the two'):
    device_specs.with_slices('h100:8:2', 4)
  with pytest.raises(ValueError, match='num_slices is 0; it must be at least'):
    device_specs.with_slices('h100:8', 0)


@pytest.mark.parametrize(
  'chip', device_specs.CHIPS.values(), ids=device_specs.CHIPS
)
def test_no_program_may_fill_more_than_there_is(chip):
  there = chip.hbm_bytes / chip.cores
  assert 0.9 * there < chip.usable_bytes < there
  # Between the slowest and the fastest there are; a wrong unit is outside.
  least = 5e11 if chip.is_tpu else 2e11
  assert 40e12 < chip.flops < 5e15 and least < chip.hbm_bandwidth < 1e13
  least = 1e11 if chip.is_tpu else 1e10  # PCIe, of a GPU without NVLink
  assert least < chip.link_bandwidth < chip.hbm_bandwidth


def test_gpus_and_peaks_of_running_devices_agree():
  for chip in device_specs.CHIPS.values():
    if not chip.is_tpu and chip.name not in ('NVIDIA T4', 'NVIDIA V100'):
      assert device_specs.peak_flops(chip.name) == chip.flops


# Prices.


def test_a_price_holds_for_its_kind_before_all_kinds():
  prices = device_specs.parse_prices(['2', 'v5e=1.5'])
  price = [device_specs.price_of(device_specs.parse(t), prices)[0] for t in TWO]
  assert price == [1.5, 2.0]


TWO = ('v5e:2x2', 'v6e:2x2')


def test_without_a_price_the_dated_table_is_said():
  price, source = device_specs.price_of(device_specs.parse('v5e:2x2'), {})
  assert price == device_specs.CHIPS['v5e'].price and re.search(
    r'\d{4}', source
  )
  price, source = device_specs.price_of(device_specs.parse('tpu7x:2x2x1'), {})
  assert price is None and '--price' in source


@pytest.mark.parametrize('word', ['cheap', 'v9=2', '-1', 'nan', '=2', 'inf'])
def test_a_price_that_is_none_is_refused(word):
  with pytest.raises(ValueError, match='dollars per chip-hour'):
    device_specs.parse_prices([word])


# Time and money.


def test_time_is_that_of_the_slowest_of_three():
  chip = device_specs.CHIPS['v5e']
  for name, change in (
    ('compute', {'compiled_flops_per_step': 4 * 3 * chip.flops}),
    ('memory', {'bytes_moved_per_device': 3 * chip.hbm_bandwidth}),
    (
      'interconnect',
      {'collectives': {'x': {'wire_bytes': 3 * chip.link_bandwidth}}},
    ),
  ):
    found = roofline.row(facts(**change), {})['estimate']
    assert found['bound_by'] == name
    assert found['step_seconds'] == pytest.approx(3.0)


def test_a_device_that_is_half_a_chip_has_half_of_it():
  """3600 steps of a second each on two chips: two chip-hours."""
  chip = device_specs.CHIPS['v3']
  four = facts('v3:1x2', compiled_flops_per_step=2 * chip.flops)
  found = roofline.row(four, {'v3': 5.0})['estimate']
  assert found['step_seconds'] == pytest.approx(1.0)
  assert found['chip_hours'] == pytest.approx(2.0)
  assert found['days'] == pytest.approx(1 / 24)
  assert found['dollars'] == pytest.approx(10.0)
  assert found['images_per_second'] == pytest.approx(64.0)


def test_sampling_is_costed_by_fifty_thousand_images():
  second = 4 * device_specs.CHIPS['v5e'].flops
  asked = facts(
    step='sample',
    num_steps=None,
    batch_size=50,
    compiled_flops_per_step=second,
  )
  found = roofline.row(asked, {})['estimate']
  assert found['days'] == pytest.approx(1000 / 86400)
  assert found['of'] == '50,000 images'


def test_the_evaluations_in_training_take_their_share_of_the_run():
  """400 steps' worth beside 3,600 steps: a tenth of a longer run."""
  without, with_them = (
    roofline.row(facts(evaluation_steps=steps), {}) for steps in (0.0, 400.0)
  )
  before, found = without['estimate'], with_them['estimate']
  assert found['evaluation_fraction'] == pytest.approx(0.1)
  assert found['days'] == pytest.approx(before['days'] / 0.9)
  assert found['of'] == before['of'] == '3,600 steps'
  assert ', 10% of it evaluating' in plan_text.plan(with_them)
  assert 'evaluating' not in plan_text.plan(without)


def test_an_evaluation_is_counted_by_its_forward_passes():
  c = loader.load(smoke_runs.CONFIGS / 'smoke_sr.py')
  c.unlock()
  c.eval.fid_every_steps, c.eval.fid_num = 8, 30
  found = evaluation_share.evaluation_steps(program.assemble(c))
  # Steps 4 and 8: two batches of 8 images, raw and EMA, and 4 pairs in 2 steps.
  passes = 2 * (2 * 2 * 8 + 4 * 2) + 30 * 2
  assert found == pytest.approx(passes / (3 * 8))
  c.eval.every_steps = c.eval.fid_every_steps = 0
  assert evaluation_share.evaluation_steps(program.assemble(c)) == 0.0


def test_bytes_between_slices_take_the_time_of_the_slow_network():
  """And all slices are paid for."""
  sent = {'count': 1, 'payload_bytes': 1, 'wire_bytes': 10**9}
  kinds = {'all-reduce': sent, 'all-reduce between slices': sent}
  one, two = (
    roofline.row(facts(topology, collectives=kinds), {})
    for topology in ('v5e:2x2', 'v5e:2x2:2')
  )
  found = two['estimate']
  assert found['bound_by'] == 'network'
  assert found['network_seconds'] == pytest.approx(10**9 * 256 * 8 / 6.4e12)
  assert found['interconnect_seconds'] == pytest.approx(10**9 / 200e9)
  assert found['chip_hours'] == pytest.approx(2 * one['estimate']['chip_hours'])
  assert found['dollars'] == pytest.approx(2 * one['estimate']['dollars'])
  written = plan_text.plan(two)
  assert '8 x TPU v5e, a device each, in 2 slices' in written
  assert re.search(r'network +320 ms  data center network', written)
  unknown = plan_text.plan(roofline.row(facts('l4:1:2'), {}))
  assert re.search(r'network +-  no bandwidth .* of l4 is known', unknown)
  assert 'network ' not in plan_text.plan(roofline.row(facts(), {})).replace(
    'network\n', ''
  )


def test_the_command_plans_as_many_slices_as_it_is_given(monkeypatch, capfd):
  asked = []

  def ask(request, *, label):
    asked.append(request['topology'])
    return facts(request['topology'], cpu_flops=1e9)

  monkeypatch.setattr(compile_process, 'compile_in_process', ask)
  words = ('plan', SMOKE, '--topology=h100:8', '--topology=cpu:4')
  assert smoke_runs.cdm(*words, '--num_slices=4', '--json') == 0
  assert asked == ['h100:8:4', 'cpu:4:4']
  rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
  assert [row['chips'] for row in rows] == [32, 16]
  assert smoke_runs.cdm('plan', SMOKE, '--topology=cpu:2:2', '--num_slices=2')
  assert 'give one of the two' in capfd.readouterr().err


def test_a_plan_says_that_fsdp_was_chosen():
  mesh = {'data': 2, 'fsdp': 4, 'tensor': 1}
  row = roofline.row(facts('v5e:2x4', mesh=mesh, fsdp_is_chosen=True), {})
  assert 'mesh data 2, fsdp 4 (fsdp chosen: ' in plan_text.plan(row)


def test_what_does_not_fit_has_no_estimate():
  nothing = dict.fromkeys(
    (
      'compiled_flops_per_step',
      'model_to_compiled_flops',
      'bytes_moved_per_device',
      'collectives',
      'compiler_rematerialized',
    )
  )
  row = roofline.row(
    facts(
      fits=False,
      peak_bytes_per_device=20 * 2**30,
      missing_bytes=4 * 2**30,
      **nothing,
    ),
    {},
  )
  assert row['estimate'] is None
  written = plan_text.plan(row)
  assert (
    'DOES NOT FIT: the compiler needs 20.00 GiB of 16.00 GiB per device, '
    '4.00 GiB too much'
  ) in written
  assert 'no ESTIMATE' in written
  rest = next(s for s in written.splitlines() if 'all else' in s)
  assert rest.split()[2:4] == ['12.00', 'GiB'], 'what the shapes do not tell'
  assert plan_text.comparison([row]).splitlines()[1].split()[2] == 'NO'


def test_loops_inside_loops_have_no_estimate_though_they_fit():
  """The compiler counts one turn of each: a figure would be far too low."""
  planned = types.SimpleNamespace(turns=None)
  work = compilation.count_work(planned, {'compiled': True}, 1)
  assert set(work.values()) == {None}
  row = roofline.row(facts(**work), {})
  assert row['estimate'] is None
  written = plan_text.plan(row)
  assert '  FITS: 8.00 GiB' in written and 'does not fit' not in written
  assert 'no ESTIMATE of time and cost: loops inside loops' in written


def test_every_time_and_price_is_called_an_estimate():
  row = roofline.row(facts(), {})
  _, _, after = plan_text.plan(row).partition('ESTIMATE')
  assert 'roofline' in after and '$' in after and 'images per second' in after
  for word in ('chip-hours', 'cost', 'days', 'step'):
    assert f'est. {word}' in plan_text.comparison([row])


# Search.


@pytest.mark.parametrize('start', [1, 3, 8, 64, 100])
@pytest.mark.parametrize('most', [0, 1, 2, 7, 8, 31, 100, 1000])
@pytest.mark.parametrize('kind', ['line', 'steps', 'curve'])
def test_the_largest_is_found_to_an_eighth(start, most, kind):
  asked = []

  def share(n):
    asked.append(n)
    return {
      'line': (n + 3) / (most + 3.5),
      'steps': 0.2 if n <= most else 1.3,  # says nothing about other n
      'curve': ((n + 1) / (most + 1.5)) ** 2,
    }[kind]

  found = search.largest(share, start=start)
  assert found <= most
  assert most - found <= max(1, found // 8) - (found == most)
  assert len(asked) == len(set(asked)) <= 16
  if kind == 'line' and start <= most:
    assert len(asked) <= (5 if start > 1 else 6)


def row(topology, days, dollars, fits=True):
  return {
    'topology': topology,
    'fits': fits,
    'estimate': {'days': days, 'dollars': dollars},
  }


def test_the_cheapest_in_time_that_fits_is_chosen():
  rows = [
    row('slow', 9.0, 1.0),
    row('dear', 1.0, 100.0),
    row('good', 4.0, 50.0),
    row('unpriced', 1.0, None),
    row('large', 1.0, 2.0, fits=False),
    {'topology': 'cpu', 'fits': True, 'estimate': None},
  ]
  best = search.cheapest(rows, deadline_days=5.0)
  assert best['topology'] == 'good'
  assert plan_text.choice(best, 5.0).endswith('good: 4 days, $50.00.')
  assert search.cheapest(rows, deadline_days=0.5) is None
  assert 'none of these' in plan_text.choice(None, 0.5)


# Numbers for people.


def test_numbers_are_written_with_their_units():
  assert plan_text.size(1.5 * 2**30) == '1.50 GiB'
  assert plan_text.size(461 * 2**20) == '461 MiB'
  assert plan_text.size(12) == '12 B'
  seconds = (3e-5, 0.0032, 12.34, 346.0, 7500.0, 12.5 * 86400)
  assert [plan_text.duration(s) for s in seconds] == [
    '30 us',
    '3.2 ms',
    '12.3 s',
    '5 min 46 s',
    '2 h 5 min',
    '12.5 days',
  ]
  assert [plan_text.count(n) for n in (59312.0, 1.25, 1e-5, 0)] == [
    '59,300',
    '1.25',
    '< 0.001',
    '0',
  ]
  assert (
    plan_text.money(12345.0) == '$12,300' and plan_text.money(0.421) == '$0.42'
  )


# Where there is no compiler, and where it ends.


def test_another_machine_is_told_what_to_use(monkeypatch):
  monkeypatch.setattr(compile_process.platform, 'system', lambda: 'Darwin')
  monkeypatch.setattr(compile_process.platform, 'machine', lambda: 'arm64')
  with pytest.raises(ValueError, match='Linux on x86-64 only.*Darwin on arm64'):
    compile_process.check(['v5e:2x2'])
  assert compile_process.check(['cpu:8'])[0].devices == 8


def test_without_the_compiler_its_package_is_named(monkeypatch):
  monkeypatch.setattr(compile_process.platform, 'system', lambda: 'Linux')
  monkeypatch.setattr(compile_process.platform, 'machine', lambda: 'x86_64')
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: None if name == 'libtpu' else found(name),
  )
  # By uv, where this environment has no pip.
  command = re.escape(shell_commands.install('cdm[plan]'))
  with pytest.raises(ValueError, match=f'Run: {command} '):
    compile_process.check(['cpu:8', 'v5e:2x2'])


def test_a_compiler_that_ends_says_how():
  assert 'runs out of memory' in compile_process.exit_message('v5e:2x2', -9, '')
  said = compile_process.exit_message('v5e:2x2', -11, 'first\nlast words')
  assert 'signal 11' in said and said.endswith('last words')


def test_a_long_compilation_says_how_long_it_has_taken(monkeypatch):
  class Process:
    turns = 0

    def wait(self, timeout):
      self.turns += 1
      if self.turns < 4:
        raise compile_process.subprocess.TimeoutExpired('it', timeout)

  clock = iter([0.0, 30.0, 61.0, 90.0])
  monkeypatch.setattr(compile_process.time, 'monotonic', lambda: next(clock))
  stream = io.StringIO()
  compile_process.wait_with_progress(Process(), 'compiling', stream)
  assert stream.getvalue() == 'compiling ...\ncompiling: 61 s\n'


# Through the front door, in a process of its own.


def test_a_plan_through_the_front_door(tmp_path, monkeypatch, capfd):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  words = ('plan', SMOKE, *SMALL, '--step=sample', '--batch_size=2')
  assert smoke_runs.cdm(*words, '--topology=cpu:2', '--json') == 0
  out, err = capfd.readouterr()
  (line,) = out.splitlines()
  plan = json.loads(line)
  assert (plan['devices'], plan['batch_size'], plan['fits']) == (2, 2, True)
  assert err == 'compiling for cpu:2 ...\n'
  assert len(list((tmp_path / 'cdm' / 'plan').glob('*.json'))) == 1


@pytest.mark.parametrize(
  ('words', 'complaint'),
  [
    (('--topology=v9:2',), 'not a known kind'),
    (('--topology=cpu:2', '--batch_size=4'), 'for --step=sample'),
    (('--topology=cpu:2', '--step=sample', '--batch_size=0'), 'at least 1'),
    (('--topology=cpu:2', '--deadline=0'), 'a number of days above 0'),
    (('--topology=cpu:2', '--price=x'), 'dollars per chip-hour'),
    (('--topology=cpu:2', '--config.train.batchsize=1'), 'Did you mean'),
    ((), 'topology'),
  ],
)
def test_bad_input_is_refused_before_anything_compiles(
  words, complaint, capfd, monkeypatch
):
  monkeypatch.setattr(compile_process, 'compile_in_process', None)
  assert smoke_runs.cdm('plan', SMOKE, *words) == 2
  assert re.search(complaint, capfd.readouterr().err)


def test_what_the_other_process_refuses_is_one_line(capfd):
  words = ('plan', SMOKE, '--topology=cpu:3', '--json')
  assert smoke_runs.cdm(*words) == 2
  out, err = capfd.readouterr()
  assert out == '' and 'Traceback' not in err
  assert 'Global batch 8 does not divide over 3 devices' in err


@pytest.mark.parametrize('step', ['train', 'sample'])
def test_search_plans_batch_after_batch(step, monkeypatch, capfd):
  """A slice on which 40 images fit, and the config has 8 of them."""

  def ask(request, *, label):
    assert request['step'] == step
    pairs = dict(request['overrides'])
    size = int(pairs.get('train.batch_size', 8))
    if step == 'sample':
      size = request['batch_size']
    return facts(
      batch_size=size,
      batch_per_device=size / 4,
      fits=size <= 40,
      peak_bytes_per_device=size + 2,
      device_bytes=43,
    )

  monkeypatch.setattr(compile_process, 'compile_in_process', ask)
  monkeypatch.setattr(
    compile_process, 'check', lambda names: [device_specs.parse(names[0])]
  )
  words = ('plan', SMOKE, '--topology=v5e:2x2', '--search', f'--step={step}')
  words += ('--batch_size=8',) if step == 'sample' else ('--deadline=30',)
  assert smoke_runs.cdm(*words) == 0
  out, err = capfd.readouterr()
  assert '10 images per part of the batch, 40 in all' in out
  if step == 'sample':
    assert 'in all: cdm sample --batch_per_device=10 (of a' in out
    return
  assert 'ESTIMATE: the cheapest within 30 days is v5e:2x2' in out
  assert err.splitlines()[0].startswith('  4 images: FITS')
  assert smoke_runs.cdm(*words, '--json') == 0
  found = json.loads(capfd.readouterr().out)['search']
  sizes = [one['batch_size'] for one in found['tried']]
  assert sizes == [8, 16, 40, 44]
