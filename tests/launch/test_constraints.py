"""Both ends of the supported range are pinned, package by package."""

import pathlib
import re
import sys
import tomllib

import pytest

from cdm.distributed import cublas

ROOT = pathlib.Path(__file__).resolve().parents[2]


def name(requirement):
  """-> name of a package, as PyPI compares names."""
  return re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')


def pins(file):
  """-> {name: version}; every line that is no comment is a pin."""
  lines = (ROOT / file).read_text(encoding='utf-8').splitlines()
  pinned = [line.split('==') for line in lines if not line.startswith('#')]
  assert all(len(pair) == 2 for pair in pinned)
  return {name(package): version for package, version in pinned}


def numbers(version):
  return [int(number) for number in re.findall(r'\d+', version)]


@pytest.mark.parametrize('file', ['constraints.txt', 'constraints-newest.txt'])
def test_every_package_is_pinned_within_its_range(file):
  project = tomllib.loads(
    (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
  )['project']
  extras = project['optional-dependencies'].values()
  pinned = pins(file)
  for requirement in sum(extras, project['dependencies']):
    package, least = re.match(r'([\w.-]+).*?>=([\d.]+)', requirement).groups()
    if package == 'tensorflow':  # Where there is no tensorflow-cpu.
      continue
    assert numbers(pinned[name(package)]) >= numbers(least), requirement


def test_the_ends_of_the_range_differ_in_jax():
  old, new = pins('constraints.txt'), pins('constraints-newest.txt')
  assert numbers(old['jax']) < numbers(new['jax'])
  for ends in (old, new):
    assert ends['jax'] == ends['jaxlib']


@pytest.mark.parametrize('file', ['constraints.txt', 'constraints-newest.txt'])
def test_the_packages_of_accelerators_are_those_of_the_pinned_jax(file):
  """An unpinned one would be the newest, which nobody has tried."""
  pinned = pins(file)
  for cuda in ('cuda12', 'cuda13'):
    for part in ('plugin', 'pjrt'):
      assert pinned[f'jax-{cuda}-{part}'] == pinned['jax']
  # What the plugins of 0.10.2 and 0.12.0.1 require, with CUDA's own libraries.
  parts = ('cublas', 'cuda-cupti', 'cuda-nvcc', 'cuda-nvrtc', 'cuda-runtime')
  parts += ('cufft', 'cusolver', 'cusparse', 'nvjitlink')
  for part in parts:
    assert pinned[f'nvidia-{part}'] and pinned[f'nvidia-{part}-cu12']
  for part in ('cudnn', 'nccl', 'nvshmem'):
    assert pinned[f'nvidia-{part}-cu12'] and pinned[f'nvidia-{part}-cu13']


@pytest.mark.parametrize('file', ['constraints.txt', 'constraints-newest.txt'])
def test_the_pinned_cublas_of_cuda_13_is_not_one_that_is_refused(file):
  major, minor, patch, *_ = numbers(pins(file)['nvidia-cublas'])
  version = 10_000 * major + 100 * minor + patch
  assert not cublas.FIRST_WRONG <= version < cublas.FIRST_RIGHT


def test_the_extra_cuda_is_cuda_13_and_the_earlier_one_remains():
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))[
    'project'
  ]['optional-dependencies']
  assert extras['cuda'][0].startswith('jax[cuda13]')
  assert extras['cuda12'][0].startswith('jax[cuda12]')


def test_a_package_of_an_accelerator_without_a_pin_is_named():
  """Of what uv resolves; everything else may differ between platforms."""
  sys.path.insert(0, str(ROOT / 'benchmarks'))
  try:
    import resolve_wheels
  finally:
    sys.path.remove(str(ROOT / 'benchmarks'))
  text = 'jax==1\nnvidia-cublas==13.10\nnvidia_nccl_cu13==2\nnumpy==2\n'
  pinned = '# a comment\njax==1\nnvidia-cublas==13.10\n'
  found = resolve_wheels.unpinned(text, pinned)
  assert found == 'no pin for nvidia-nccl-cu13'
  assert resolve_wheels.unpinned(text, text) is None
