"""FLOPs of single operations against closed forms."""

import jax
import jax.numpy as jnp
import pytest

from cdm.models import flops
from cdm.models.resnet import ResNet50
from cdm.models.unet import UNet


def count(f, *shapes):
  args = [jnp.zeros(shape) for shape in shapes]
  return flops.count_flops(jax.make_jaxpr(f)(*args))


def conv(x, w, *, strides=1, groups=1, padding='SAME'):
  return jax.lax.conv_general_dilated(
    x,
    w,
    (strides, strides),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


@pytest.mark.parametrize(
  ('strides', 'groups', 'expected'),
  # outputs x window x inputs per group, in multiply-adds of two FLOPs
  [
    (1, 1, 2 * (2 * 8 * 10 * 12) * (3 * 5) * 6),
    (2, 1, 2 * (2 * 4 * 5 * 12) * (3 * 5) * 6),
    (1, 3, 2 * (2 * 8 * 10 * 12) * (3 * 5) * 2),
  ],
)
def test_a_convolution_costs_its_window_at_every_output(
  strides, groups, expected
):
  counted = count(
    lambda x, w: conv(x, w, strides=strides, groups=groups),
    (2, 8, 10, 6),
    (3, 5, 6 // groups, 12),
  )
  assert counted == expected


def test_a_batched_matmul_costs_its_contracted_axes_at_every_output():
  counted = count(
    lambda q, k: jnp.einsum('bqhd,bkhd->bhqk', q, k),
    (2, 7, 3, 5),
    (2, 11, 3, 5),
  )
  assert counted == 2 * (2 * 3 * 7 * 11) * 5


def test_without_padding_the_compiler_counts_the_same():
  """XLA's own cost analysis, of a program of nothing but multiply-adds."""

  def f(x, w, m):
    return conv(x, w, strides=2, padding='VALID') @ m

  shapes = (2, 9, 9, 4), (3, 3, 4, 8), (8, 6)
  args = [jnp.zeros(shape) for shape in shapes]
  peer = jax.jit(f).lower(*args).cost_analysis()['flops']
  assert count(f, *shapes) == peer


def test_work_inside_other_programs_is_counted_every_time_it_runs():
  def f(x):
    square = jax.jit(lambda a: a @ a)  # once
    again = jax.checkpoint(jax.nn.silu)(square(x))
    turned, _ = jax.lax.scan(lambda a, _: (a @ a, None), again, length=5)
    either = jax.lax.cond(
      x[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, turned
    )
    remembered = jax.checkpoint(lambda a: a @ a)(either)
    return jax.vmap(lambda row: row @ x)(remembered)

  # jit 1, scan 5, the dearer branch 2, checkpoint 1, vmap 1.
  assert count(f, (4, 4)) == 10 * 2 * 4**3


def test_a_loop_of_unknown_length_is_refused():
  def f(x):
    return jax.lax.while_loop(lambda a: a[0, 0] < 1, lambda a: a @ a, x)

  with pytest.raises(ValueError, match='while loop.*use jax.lax.scan'):
    count(f, (4, 4))


@pytest.mark.parametrize('has_lowres', [False, True])
def test_a_network_is_traced_with_the_inputs_that_it_has(has_lowres):
  def inputs(**fields):
    net = UNet(features=8, multipliers=(1,), num_blocks=1, **fields)
    args, kwargs = flops._inputs(net, 4, has_lowres)
    assert [(a.shape, a.dtype.name) for a in args] == [
      ((1, 4, 4, 3), 'float32'),
      ((1,), 'float32'),
    ]
    return {name: (a.shape, a.dtype.name) for name, a in kwargs.items()}

  lowres = {'lowres': ((1, 4, 4, 3), 'float32')} if has_lowres else {}
  assert inputs() == lowres
  assert inputs(num_classes=3) == lowres | {'label': ((1,), 'int32')}
  level = {'lowres_level': ((1,), 'float32')}
  assert inputs(lowres_level=True) == (lowres | level if has_lowres else level)


def test_a_classifier_is_traced_with_an_image_alone():
  args, kwargs = flops._inputs(ResNet50(num_classes=2), 32, False)
  assert [a.shape for a in args] == [(1, 32, 32, 3)] and kwargs == {}
