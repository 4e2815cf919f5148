import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdm.distributed import compiler_options


@pytest.fixture(autouse=True)
def no_flag(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=8')


def test_cpu_programs_get_the_option():
  assert set(compiler_options.for_devices(jax.devices())) == {
    compiler_options.OPTION
  }


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_other_devices_get_no_options(platform):
  device = types.SimpleNamespace(platform=platform)
  assert compiler_options.for_devices([device]) is None


def test_the_users_own_flag_holds(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', f'--{compiler_options.OPTION}=')
  assert compiler_options.for_devices(jax.devices()) is None


def test_an_option_that_jaxlib_does_not_know_is_left_out(monkeypatch):
  monkeypatch.setattr(compiler_options, 'OPTION', 'xla_cpu_no_such_option')
  compiler_options._is_known.cache_clear()
  assert compiler_options.for_devices(jax.devices()) is None
  compiler_options._is_known.cache_clear()


def test_the_options_change_the_speed_not_the_numbers():
  x = jax.random.normal(jax.random.key(0), (4, 16, 16, 8))
  w = jax.random.normal(jax.random.key(1), (3, 3, 8, 8))

  def loss(w, x):
    y = jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return jnp.square(y - y.mean((1, 2), keepdims=True)).mean()

  def gradients(options):
    run = jax.jit(jax.value_and_grad(loss, (0, 1)), compiler_options=options)
    return jax.tree.leaves(run(w, x))

  found = gradients(compiler_options.for_devices(jax.devices()))
  for a, b in zip(found, gradients(None), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
