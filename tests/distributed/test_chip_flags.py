"""The compiler's flags of a chip: set before JAX starts, and accepted."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from cdm.distributed import chip_flags, initialize
from cdm.planning import compile_process

ROOT = pathlib.Path(__file__).resolve().parents[2]
LATENCY = 'xla_gpu_enable_latency_hiding_scheduler'


@pytest.fixture
def machine(tmp_path, monkeypatch):
  """-> f(path, text) that writes a file of a machine, which has no others."""
  monkeypatch.setattr(chip_flags, '_SYSTEM', tmp_path)
  monkeypatch.setenv('PATH', str(tmp_path))  # without nvidia-smi

  def write(path, text, mode=0o644):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding='utf-8')
    file.chmod(mode)

  return write


def gpu(machine, name, number=0):
  folder = f'proc/driver/nvidia/gpus/0000:{number:02}:00.0'
  machine(f'{folder}/information', f'Model: \t\t {name}\nIRQ: 16\n')


def tpu(machine, device, slot='0000:00:04.0'):
  machine(f'sys/bus/pci/devices/{slot}/vendor', '0x1ae0\n')
  machine(f'sys/bus/pci/devices/{slot}/device', f'{device}\n')


@pytest.mark.parametrize(
  ('name', 'chip'),
  [
    ('NVIDIA A100-SXM4-80GB', 'A100'),
    ('NVIDIA H100 80GB HBM3', 'H100'),
    ('NVIDIA H200', 'H200'),
    ('NVIDIA B200', 'B200'),
    ('NVIDIA GB200', 'B200'),
    ('NVIDIA L4', 'NVIDIA GPU'),
    ('NVIDIA RTX A1000', 'NVIDIA GPU'),
    ('Tesla V100-SXM2-16GB', 'NVIDIA GPU'),
  ],
)
def test_the_files_of_the_driver_name_the_gpu(machine, name, chip):
  assert chip_flags.chip_at_hand({}) is None
  gpu(machine, name)
  assert chip_flags.chip_at_hand({}) == chip
  assert chip_flags.chip_at_hand({'JAX_PLATFORMS': 'cuda,cpu'}) == chip
  for other in ('cpu', 'tpu', 'cpu,cuda'):
    assert chip_flags.chip_at_hand({'JAX_PLATFORMS': other}) is None


def test_a_container_that_shows_no_such_file_is_asked_with_nvidia_smi(machine):
  machine('dev/nvidia0', '')
  assert chip_flags.chip_at_hand({}) == 'NVIDIA GPU'
  said = '#!/bin/sh\necho "NVIDIA H200"; echo "NVIDIA H200"\n'
  machine('nvidia-smi', said, 0o755)
  assert chip_flags.chip_at_hand({}) == 'H200'


@pytest.mark.parametrize(
  ('device', 'kind', 'chip'),
  [
    ('0x005e', 'v4-8', 'TPU v4'),
    ('0x0062', 'v5p-32', 'TPU v5p'),
    ('0x0063', 'v5litepod-256', 'TPU v5e'),
    ('0x006f', 'v6e-4', 'TPU v6e'),
    ('0x0027', 'v3-8', None),
    ('0x0001', '', None),
  ],
)
def test_the_bus_or_the_environment_names_the_tpu(machine, device, kind, chip):
  assert chip_flags.chip_at_hand({'TPU_ACCELERATOR_TYPE': kind}) == chip
  tpu(machine, device)
  assert chip_flags.chip_at_hand({}) == chip
  assert chip_flags.chip_at_hand({'JAX_PLATFORMS': 'cpu'}) is None


def test_the_flags_of_the_user_stay_and_the_line_names_what_was_added(machine):
  gpu(machine, 'NVIDIA H100 80GB HBM3')
  environment = {'XLA_FLAGS': f'--xla_dump_to=/d --{LATENCY}=false'}
  line = chip_flags.apply(environment)
  flags = environment['XLA_FLAGS'].split()
  assert flags[:2] == ['--xla_dump_to=/d', f'--{LATENCY}=false']
  assert len(flags) == 1 + len(chip_flags.FLAGS['H100'].values)
  assert line.startswith('compiler flags of H100, added to XLA_FLAGS (CDM_CHIP')
  assert line.endswith(' '.join(flags[2:])) and '\n' not in line
  # A second call, as of a program that runs two commands, adds nothing.
  assert chip_flags.apply(environment) is None
  assert environment['XLA_FLAGS'].split() == flags


def test_a_tpu_gets_its_flags_where_libtpu_reads_them(machine):
  tpu(machine, '0x0063')
  environment = {}
  assert chip_flags.apply(environment).startswith('compiler flags of TPU v5e')
  assert list(environment) == ['LIBTPU_INIT_ARGS']


def test_the_switch_leaves_everything_as_it_is(machine):
  gpu(machine, 'NVIDIA B200')
  environment = {'CDM_CHIP_FLAGS': '0'}
  assert chip_flags.apply(environment) is None
  assert environment == {'CDM_CHIP_FLAGS': '0'}
  with pytest.raises(ValueError, match="CDM_CHIP_FLAGS is 'no'; 0 leaves"):
    chip_flags.apply({'CDM_CHIP_FLAGS': 'no'})


@pytest.mark.parametrize('version', ['0.9.3', '0.13.0', '1.0.0'])
def test_other_versions_of_jaxlib_get_none(machine, monkeypatch, version):
  gpu(machine, 'NVIDIA H200')
  monkeypatch.setattr('importlib.metadata.version', lambda _: version)
  environment = {}
  assert f'jaxlib {version} is not among' in chip_flags.apply(environment)
  assert not environment


def test_the_pinned_versions_of_jaxlib_are_among_those_that_were_tried():
  for file in ('constraints.txt', 'constraints-newest.txt'):
    text = (ROOT / file).read_text(encoding='utf-8')
    major, minor = re.search(r'^jaxlib==(\d+)\.(\d+)', text, re.M).groups()
    first, last = chip_flags.TRIED
    assert first <= (int(major), int(minor)) <= last


START = """
import jax
jax.devices()
print('started')
"""


def test_the_installed_xla_accepts_every_flag_for_gpus():
  """An unknown flag ends the process, also where XLA has only CPUs."""
  values = {}
  for chip in chip_flags.FLAGS.values():
    if chip.variable == chip_flags.GPU:
      values |= chip.values
  flags = [f'--{name}={value}' for name, value in values.items()]
  for unknown, code in (([], 0), (['--xla_gpu_no_such_flag=1'], None)):
    done = subprocess.run(
      [sys.executable, '-c', START],
      env={
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': ' '.join([*flags, *unknown]),
      },
      capture_output=True,
      text=True,
      timeout=180,
      encoding='utf-8',
    )
    assert (done.returncode == 0) == (code == 0), done.stderr


def test_a_command_sets_the_flags_before_jax_starts_and_says_so(
  machine, monkeypatch, capsys
):
  gpu(machine, 'NVIDIA H200')
  monkeypatch.setenv('JAX_PLATFORMS', '')
  monkeypatch.setenv('XLA_FLAGS', '')
  monkeypatch.setattr(
    initialize.platforms,
    'require',
    lambda: print(os.environ['XLA_FLAGS'].count(LATENCY)),
  )
  initialize.join(environment={})
  said = capsys.readouterr()
  assert said.out == '1\n'
  assert said.err.startswith('compiler flags of H200, added to XLA_FLAGS')


COMPILE = """
import jax, jax.numpy as jnp
from cdm.distributed import device_specs
from cdm.planning import described_devices
piece = device_specs.parse({topology!r})
mesh = jax.sharding.Mesh(described_devices.of(piece), 'x')
places = [
  jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axis))
  for axis in ('x', None)
]
def loss(w, x):
  return jnp.sum((x @ w) ** 2)
step = jax.jit(jax.grad(loss), in_shardings=places, out_shardings=places[0])
step.lower(jnp.ones((256, 256)), jnp.ones((512, 256))).compile()
"""
SLICES = {
  'TPU v4': 'v4:2x2x1',
  'TPU v5e': 'v5e:2x2',
  'TPU v5p': 'v5p:2x2x1',
  'TPU v6e': 'v6e:2x2',
}


@pytest.mark.skipif(
  not importlib.util.find_spec('libtpu'), reason='no compiler for TPUs here'
)
@pytest.mark.parametrize('chip', SLICES)
def test_the_installed_libtpu_compiles_with_the_flags_of_each_chip(chip):
  """It ends at an unknown flag, and refuses some flags for some chips."""
  flags = chip_flags.FLAGS[chip]
  assert flags.variable == chip_flags.TPU
  values = [f'--{name}={value}' for name, value in flags.values.items()]
  done = subprocess.run(
    [sys.executable, '-c', COMPILE.format(topology=SLICES[chip])],
    env={
      **compile_process.child_environment(),
      'LIBTPU_INIT_ARGS': ' '.join(values),
    },
    capture_output=True,
    text=True,
    timeout=300,
    encoding='utf-8',
  )
  assert done.returncode == 0, done.stderr[-2000:]


def test_every_tpu_of_the_table_is_compiled_for():
  tpus = {c for c, f in chip_flags.FLAGS.items() if f.variable != 'XLA_FLAGS'}
  assert tpus == set(SLICES)
