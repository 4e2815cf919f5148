"""Fused kernels of attention for GPUs and TPUs, which store no weights.

On NVIDIA GPUs it is cuDNN's flash attention, on TPUs JAX's splash attention.
Both take bfloat16 only: cuDNN has no float32, and the TPU's kernel would
multiply float32 in passes of bfloat16.

The compiler cannot split a kernel over devices, so the kernel is wrapped in a
`jax.shard_map` over the mesh that JAX knows while it traces (see
`distributed.device_mesh.in_mesh`). Without such a mesh there is no kernel.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

# The axis of a mesh that splits heads. All others split the batch.
HEADS_AXIS = 'tensor'
# cuDNN's flash attention, as `jax.nn.dot_product_attention` checks it: width of
# a head in multiples of 8, up to 128, and up to 256 from Hopper (9.0) on; GPUs
# from Ampere (8.0) on.
CUDNN_MULTIPLE = 8
CUDNN_WIDEST = 128
CUDNN_WIDEST_FROM_HOPPER = 256
AMPERE, HOPPER = (8, 0), (9, 0)
# Pixels come to the TPU's kernel in blocks, which are multiples of the lanes.
LANES = 128
# A block of queries times a block of keys, in float32, is 1 MiB of a core's
# 16 MiB or more of fast memory; beside them lie blocks of q, k and v as wide as
# a head.
SPLASH_BLOCK = 512
SPLASH_WIDEST = 256
# Pallas compiles no product of bfloat16 for these (error E2001 of libtpu).
TPUS_WITHOUT_BFLOAT16 = ('TPU v2', 'TPU v3')

Kernel = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def kernel_for(q: jax.Array) -> Kernel | None:
  """Returns the kernel for such queries on the devices of the mesh.

  Args:
    q: [B, N, heads, d]; for B the whole batch, or inside a `jax.shard_map` over
      the batch axes the part of one device.

  Returns:
    (q, k, v) -> [B, N, heads, d], see `attention_products.attend`; None if
    there is no kernel for them.
  """
  mesh = mesh_for(q)
  if mesh is None or q.dtype != jnp.bfloat16:
    return None
  device, width = mesh.abstract_device, q.shape[-1]
  if device.platform == 'gpu' and _suits_cudnn(width):
    return on_each_device(cudnn, mesh)
  if device.platform == 'tpu' and _suits_splash(width, device.device_kind):
    return on_each_device(splash, mesh)
  return None


def mesh_for(q: jax.Array) -> AbstractMesh | None:
  """Returns the mesh for `on_each_device`, or None if there is none.

  There is none if JAX knows no mesh while it traces, or if images or heads do
  not divide over it.

  Args:
    q: see `kernel_for`.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.abstract_device is None or not _divides(q, mesh):
    return None
  return mesh


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """Computes attention by cuDNN, on one GPU; see `attention_products.attend`.

  Its backward pass adds in no fixed order, unless XLA_FLAGS has
  --xla_gpu_deterministic_ops=true.
  """
  return jax.nn.dot_product_attention(q, k, v, implementation='cudnn')


def splash(
  q: jax.Array, k: jax.Array, v: jax.Array, *, interpret: bool = False
) -> jax.Array:
  """Computes attention by a Pallas kernel, on one TPU.

  Pixels are padded to a multiple of `LANES`; no pixel attends to the padding.

  Args:
    q, k, v: see `attention_products.attend`.
    interpret: True runs the kernel on any device, slowly.
  """
  from jax.experimental.pallas.ops.tpu import splash_attention

  _, n, heads, d = q.shape
  padding = -n % LANES
  block = _splash_block(n + padding)
  mask = splash_attention.FullMask((n + padding, n + padding))
  kernel = splash_attention.make_splash_mha_single_device(
    splash_attention.MultiHeadMask([mask] * heads),
    block_sizes=splash_attention.BlockSizes(
      block_q=block,
      block_kv=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      block_q_dq=block,
      block_kv_dq=block,
    ),
    interpret=interpret,
  )
  segments = None
  if padding:
    is_padding = (jnp.arange(n + padding) >= n).astype(jnp.int32)
    segments = splash_attention.SegmentIds(is_padding, is_padding)
  # The kernel does not scale. It takes one image, [heads, N, d].
  q = (q.astype(jnp.float32) / math.sqrt(d)).astype(q.dtype)
  q, k, v = (
    jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, padding), (0, 0)))
    for x in (q, k, v)
  )
  out = jax.vmap(lambda q, k, v: kernel(q, k, v, segments))(q, k, v)
  return out[:, :, :n].swapaxes(1, 2)


def _splash_block(n: int) -> int:
  """Returns the largest block that divides n pixels, a multiple of LANES."""
  sizes = range(LANES, SPLASH_BLOCK + 1, LANES)
  return max(size for size in sizes if n % size == 0)


def _suits_splash(width: int, kind: str) -> bool:
  """Returns whether heads of this width fit the kernel on a kind of TPU."""
  return width <= SPLASH_WIDEST and kind not in TPUS_WITHOUT_BFLOAT16


def _suits_cudnn(width: int) -> bool:
  """Returns whether cuDNN has a kernel for heads of this width, on this GPU."""
  capability = getattr(jax.local_devices()[0], 'compute_capability', '')
  major, _, minor = str(capability).partition('.')
  if not (major.isdecimal() and minor.isdecimal()):
    return False  # Another maker's GPU.
  version = (int(major), int(minor))
  widest = CUDNN_WIDEST_FROM_HOPPER if version >= HOPPER else CUDNN_WIDEST
  return version >= AMPERE and width <= widest and not width % CUDNN_MULTIPLE


def _axes(mesh: AbstractMesh) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Returns the axes that are not split yet: (of the batch, of the heads)."""
  left = [
    name
    for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
    if kind == AxisType.Auto
  ]
  return (
    tuple(name for name in left if name != HEADS_AXIS),
    tuple(name for name in left if name == HEADS_AXIS),
  )


def _divides(q: jax.Array, mesh: AbstractMesh) -> bool:
  """Returns whether batch and heads divide over the axes that split them."""
  b, _, heads, _ = q.shape
  return all(
    size % math.prod(mesh.shape[name] for name in names) == 0
    for size, names in zip((b, heads), _axes(mesh), strict=True)
  )


def on_each_device(kernel: Kernel, mesh: AbstractMesh) -> Kernel:
  """Returns a kernel that every device runs on its own images and heads.

  Args:
    kernel: what one device runs.
    mesh: the mesh that JAX knows while it traces. Inside a `jax.shard_map` its
      axes are split already, and only the others are split here.
  """
  batch, heads = _axes(mesh)
  if not batch + heads:
    return kernel
  spec = PartitionSpec(batch or None, None, heads or None, None)
  return jax.shard_map(
    kernel,
    in_specs=spec,
    out_specs=spec,
    axis_names={*batch, *heads},
    check_vma=False,
  )
