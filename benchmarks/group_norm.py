"""Counts the bytes that GroupNorm and SiLU move between two convolutions.

  python benchmarks/group_norm.py --topology=v6e:1x1 --side=64 --channels=192

compiles a 3x3 convolution, `group_norm.normalised` with SiLU and another 3x3
convolution, in bfloat16, for one chip of a TPU that need not exist: the layer
alone, and with its gradient by the input, the kernels, gain and shift. Printed
are the bytes that the program reads and writes and those of its temporary
arrays, by the compiler's own count. Nothing is run. The compiler takes the
least effort, as for `cdm plan --quick`; `--full` lets it take its time.
"""

import argparse

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from cdm.distributed import device_specs
from cdm.models import group_norm
from cdm.planning import compilation, described_devices

EPS = 1e-5


def conv(x, kernel):
  """x: [B, H, W, C], kernel: [3, 3, C, C] -> [B, H, W, C]."""
  axes = ('NHWC', 'HWIO', 'NHWC')
  kernel = kernel.astype(x.dtype)
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=axes
  )


def layer(num_groups, x, kernel_1, gain, shift, kernel_2):
  """x: [B, H, W, C] -> [B, H, W, C]."""
  h = group_norm.normalised(
    conv(x, kernel_1),
    gain,
    shift,
    num_groups=num_groups,
    eps=EPS,
    silu=True,
    dtype=x.dtype,
  )
  return conv(h, kernel_2)


def programs(num_groups):
  """-> {name: (function, whether it takes the gradient of the result)}."""

  def forward(*inputs):
    return layer(num_groups, *inputs)

  def gradient(dy, *inputs):
    y, backward = jax.vjp(forward, *inputs)
    return y, backward(dy)

  return {'forward': (forward, False), 'gradient': (gradient, True)}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--topology', default='v6e:1x1')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--side', type=int, default=64)
  parser.add_argument('--channels', type=int, default=192)
  parser.add_argument('--norm_groups', type=int, default=32)
  parser.add_argument('--full', action='store_true')
  args = parser.parse_args()
  piece = device_specs.parse(args.topology)
  place = SingleDeviceSharding(described_devices.of(piece)[0])

  def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

  b, side, c = args.batch, args.side, args.channels
  x = array(b, side, side, c, dtype=jnp.bfloat16)
  kernel, vector = array(3, 3, c, c), array(b, c)
  inputs = (x, kernel, vector, vector, kernel)
  print(f'{x.shape} {x.dtype} on {piece.topology}')
  groups = group_norm.group_count(c, args.norm_groups)
  for name, (function, takes_dy) in programs(groups).items():
    given = (x, *inputs) if takes_dy else inputs
    lowered = jax.jit(function).lower(*given)
    facts = compilation.compile_now(lowered, 1, quick=not args.full)
    if not facts['compiled']:
      print(f'{name}: {facts["message"].splitlines()[0]}')
      continue
    moved, kept = facts['bytes_accessed'], facts['memory']['temporaries']
    print(
      f'{name}: {moved / 2**20:.0f} MiB moved, '
      f'{kept / 2**20:.0f} MiB of temporary arrays',
      flush=True,
    )


if __name__ == '__main__':
  main()
