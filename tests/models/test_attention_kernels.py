"""Kernels of attention: their numbers, their limits, and their devices.

No GPU and no TPU is needed: the TPU's kernel is interpreted, and programs are
lowered for the platforms.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, PartitionSpec

from cdm.distributed import device_mesh
from cdm.models import attention_kernels, attention_products

BATCH = PartitionSpec(device_mesh.BATCH_AXES)


def normals(*shape, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  return [jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(4)]


def both(form, q, k, v, probe):
  """-> the result and the three gradients of its product with `probe`."""

  def loss(q, k, v):
    out = form(q, k, v)
    return (out.astype(jnp.float32) * probe).sum(), out

  grads, out = jax.grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
  return out, *grads


@pytest.mark.parametrize('n', [256, 130])  # whole blocks; padded by 126
def test_the_kernel_of_tpus_gives_the_plain_numbers(n):
  given = normals(2, n, 2, 24)
  splash = functools.partial(attention_kernels.splash, interpret=True)
  for mine, expected in zip(
    jax.jit(functools.partial(both, splash))(*given),
    jax.jit(functools.partial(both, attention_products.plain))(*given),
    strict=True,
  ):
    np.testing.assert_allclose(mine, expected, atol=5e-6)


# --- Devices


def in_manual(mesh, function):
  """-> the function in a shard_map over the axes of the batch alone."""
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=BATCH,
    out_specs=BATCH,
    axis_names={*device_mesh.BATCH_AXES},
    check_vma=False,
  )


def placed(mesh, *shape, dtype=jnp.float32):
  place = device_mesh.batch_sharding(mesh)
  return [jax.device_put(x, place) for x in normals(*shape, dtype=dtype)]


def split(kernel):
  """-> `both`, of a kernel that is split as `kernel_for` splits its own."""

  def form(*given):
    mesh = jax.sharding.get_abstract_mesh()
    return attention_kernels.on_each_device(kernel, mesh)(*given)

  return functools.partial(both, jax.checkpoint(form))


@pytest.mark.parametrize('wrap', [device_mesh.in_mesh, None])
def test_every_device_runs_the_kernel_on_its_own_images_and_heads(wrap):
  mesh = device_mesh.make_mesh(data=2, fsdp=2, tensor=2)
  seen = []

  def kernel(q, k, v):
    seen.append(q.shape)
    return attention_products.plain(q, k, v)

  step = split(kernel)
  step = wrap(step, mesh) if wrap else in_manual(mesh, step)
  given = placed(mesh, 4, 9, 2, 5)
  program = jax.jit(step).lower(*given).compile()
  assert {*seen} == {(1, 9, 1, 5)}
  assert 'all-to-all' not in program.as_text()
  for mine, expected in zip(
    program(*given), both(attention_products.plain, *given), strict=True
  ):
    np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_a_split_kernel_lowers_for_tpus_and_an_unsplit_one_does_not():
  """Mosaic refuses kernels that the compiler would have to split."""
  mesh = device_mesh.make_mesh(data=2, fsdp=2, tensor=2)
  given = placed(mesh, 4, 128, 2, 64, dtype=jnp.bfloat16)
  step = split(attention_kernels.splash)

  def lowered(step):
    traced = jax.jit(step).trace(*given)
    return traced.lower(lowering_platforms=('tpu',)).as_text()

  for known in (device_mesh.in_mesh(step, mesh), in_manual(mesh, step)):
    assert lowered(known).count('tpu_custom_call') >= 3  # forward, dq, dkv
  with pytest.raises(NotImplementedError, match='shard_map'):
    lowered(functools.partial(both, attention_kernels.splash))


def test_cudnn_is_called_forward_and_backward(monkeypatch):
  """JAX asks for cuDNN's version when it traces; here there is none."""
  from jax._src.cudnn import fused_attention_stablehlo

  monkeypatch.setattr(
    fused_attention_stablehlo, 'check_cudnn_version', lambda: 91_000
  )
  mesh = device_mesh.make_mesh(data=4, tensor=2)
  step = device_mesh.in_mesh(split(attention_kernels.cudnn), mesh)
  given = placed(mesh, 4, 128, 2, 64, dtype=jnp.bfloat16)
  traced = jax.jit(step).trace(*given)
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert '__cudnn$fmhaSoftmax(' in text
  assert '__cudnn$fmhaSoftmaxBackward(' in text


@pytest.mark.parametrize(
  ('platform', 'kind', 'shape', 'dtype', 'expected'),
  [
    ('tpu', 'TPU v4', (4, 600, 2, 64), 'bfloat16', 'splash'),
    ('tpu', 'TPU v5 lite', (4, 600, 2, 256), 'bfloat16', 'splash'),
    ('tpu', 'TPU v3', (4, 600, 2, 64), 'bfloat16', None),
    ('tpu', 'TPU v4', (4, 600, 2, 257), 'bfloat16', None),
    ('tpu', 'TPU v4', (4, 600, 2, 64), 'float32', None),
    ('tpu', 'TPU v4', (3, 600, 2, 64), 'bfloat16', None),  # data=2
    ('tpu', 'TPU v4', (4, 600, 1, 64), 'bfloat16', None),  # tensor=2
    ('gpu', '8.0', (4, 600, 2, 128), 'bfloat16', 'cudnn'),
    ('gpu', '8.0', (4, 600, 2, 256), 'bfloat16', None),
    ('gpu', '9.0', (4, 600, 2, 256), 'bfloat16', 'cudnn'),
    ('gpu', '12.0', (4, 600, 2, 256), 'bfloat16', 'cudnn'),
    ('gpu', '9.0', (4, 600, 2, 264), 'bfloat16', None),
    ('gpu', '9.0', (4, 600, 2, 60), 'bfloat16', None),
    ('gpu', '7.5', (4, 600, 2, 64), 'bfloat16', None),
    ('gpu', '9.0', (4, 600, 2, 64), 'float32', None),
    ('gpu', 'gfx942', (4, 600, 2, 64), 'bfloat16', None),
    ('cpu', '', (4, 600, 2, 64), 'bfloat16', None),
  ],
)
def test_a_kernel_is_used_where_its_limits_allow(
  monkeypatch, platform, kind, shape, dtype, expected
):
  """The kind of a GPU is here its compute capability."""

  class Device:
    compute_capability = kind

  monkeypatch.setattr(jax, 'local_devices', lambda: [Device()])
  monkeypatch.setattr(
    attention_kernels, 'on_each_device', lambda kernel, mesh: kernel
  )
  mesh = AbstractMesh(
    (2, 1, 2),
    device_mesh.AXES,
    axis_types=(AxisType.Auto,) * 3,
    abstract_device=AbstractDevice(kind, None, platform),
  )
  q = jax.ShapeDtypeStruct(shape, dtype)
  with jax.sharding.use_abstract_mesh(mesh):
    found = attention_kernels.kernel_for(q)
  assert (found.__name__ if found else None) == expected
  assert attention_kernels.kernel_for(q) is None  # without a mesh


def test_the_axis_of_heads_is_the_one_that_does_not_split_the_batch():
  rest = {*device_mesh.AXES} - {*device_mesh.BATCH_AXES}
  assert rest == {attention_kernels.HEADS_AXIS}
