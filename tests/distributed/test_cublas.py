"""Versions of cuBLAS that corrupt data are refused, on the GPUs concerned."""

import sys
import types

import jax
import pytest

from cdm.distributed import cublas, exit_codes, platforms


class Gpu:
  """A stand-in of JAX's device: the two attributes that are read."""

  def __init__(self, capability, kind='NVIDIA B200'):
    self.compute_capability, self.device_kind = capability, kind
    self.platform = 'gpu'


@pytest.fixture
def installed(monkeypatch):
  """-> f(version) that installs JAX's plugin with a version of cuBLAS."""

  def install(version, package='jax_cuda13_plugin'):
    versions = types.ModuleType(f'{package}._versions')
    versions.cublas_get_version = lambda: version
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, f'{package}._versions', versions)

  return install


@pytest.mark.parametrize(
  ('capability', 'version', 'refused'),
  [
    ('10.0', 120800, True),
    ('10.0', 120903, True),
    ('10.3', 130103, True),
    ('11.0', 130199, True),
    ('10.0', 130200, False),
    ('10.0', 120700, False),
    ('9.0', 120903, False),  # H100
    ('12.0', 120903, False),  # RTX 50: no Tensor Memory
    ('', 120903, False),
  ],
)
def test_what_jax_warns_of_is_refused_and_nothing_else(
  installed, capability, version, refused
):
  installed(version)
  wrong = cublas.wrong([Gpu(capability)], {})
  assert (wrong is not None) == refused
  if refused:
    assert 'NVIDIA B200' in wrong and '[cuda]' in wrong
    major, minor = version // 10000, version // 100 % 100
    assert wrong.startswith(f'cuBLAS {major}.{minor}.')
    assert '\n' not in wrong


def test_the_plugin_of_cuda_12_is_asked_where_there_is_no_other(installed):
  installed(120903, 'jax_cuda12_plugin')
  assert cublas.wrong([Gpu('9.0', 'NVIDIA H100'), Gpu('10.0')], {})
  assert not cublas.wrong([Gpu('10.0')], {cublas.SKIP: '1'})


def test_devices_of_other_kinds_need_no_cublas():
  assert cublas.wrong(jax.devices(), {}) is None
  assert cublas.wrong([Gpu('10.0')], {}) is None  # no plugin, no version


def test_a_command_ends_before_it_computes(monkeypatch, installed):
  installed(120903)
  monkeypatch.setattr(jax, 'devices', lambda: [Gpu('10.0')])
  monkeypatch.setattr(jax, 'local_devices', lambda: [Gpu('10.0')])
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  with pytest.raises(platforms.NoDevice, match=r'cuBLAS 12\.9\.3 ') as caught:
    platforms.require()
  assert exit_codes.classify(caught.value) is exit_codes.BAD_INPUT
