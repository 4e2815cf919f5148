"""Speed of the U-Net: images per second, and the share of a plain matmul's.

  python benchmarks/unet_forward.py --net=sr3_16to128 --batch=8 \
      --set dtype=bfloat16 --set remat=True

prints, for the forward pass and for forward + backward (the gradient of a mean
square with respect to every parameter),

  images/s   of one device
  FLOP/s     model FLOPs over time: those of the forward pass, three times that
             for a training step; what remat recomputes is not counted
  share      FLOP/s over that of a large square matrix product, same dtype,
             measured on this very device: the limit that matters here

and the memory that XLA plans for the training step beside its arguments.
"""

import argparse
import ast
import functools
import math
import time

import jax
import jax.numpy as jnp

from cdm.models.unet import UNet

SR3 = dict(
  embedding='additive',
  skip_rescale=True,
  condition_on='sqrt_alpha_bar',
  attention_resolutions=(16,),
)
# name: (image size, takes lowres, fields)
NETS = {
  'small': (  # 32 px, worked at 16: what two cores can train
    32,
    True,
    dict(
      features=48,
      multipliers=(1, 2),
      num_blocks=2,
      attention_resolutions=(8,),
      condition_on='logsnr',
      patch_size=2,
    ),
  ),
  'adm_64': (
    64,
    False,
    dict(
      features=192,
      multipliers=(1, 2, 3, 4),
      num_blocks=3,
      attention_resolutions=(32, 16, 8),
      head_features=64,
      num_classes=1000,
      learned_variance=True,
    ),
  ),
  'sr3_16to128': (
    128,
    True,
    dict(features=128, multipliers=(1, 2, 4, 8, 8), num_blocks=3, **SR3),
  ),
  'sr3_64to256': (
    256,
    True,
    dict(features=128, multipliers=(1, 2, 4, 4, 8, 8), num_blocks=3, **SR3),
  ),
}


def seconds(compiled, args, repeats):
  """-> the shortest of `repeats` runs, after one that does not count."""
  shortest = math.inf
  for i in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    if i:
      shortest = min(shortest, time.perf_counter() - start)
  return shortest


def matmul_rate(dtype, repeats):
  """-> FLOP/s of a square matrix product, as large as the device deserves."""
  n = 1024 if jax.default_backend() == 'cpu' else 8192
  a = jnp.ones((n, n), dtype)
  compiled = jax.jit(jnp.matmul).lower(a, a).compile()
  return 2 * n**3 / seconds(compiled, (a, a), repeats)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--net', choices=NETS, default='small')
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--size', type=int, help='another image size')
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument(
    '--set', action='append', default=[], metavar='FIELD=VALUE'
  )
  flags = parser.parse_args()
  size, has_lowres, fields = NETS[flags.net]
  size = flags.size or size
  for name, value in (pair.split('=', 1) for pair in flags.set):
    try:
      fields[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a bare word
      fields[name] = value
  net = UNet(**fields)

  b = flags.batch
  x = jnp.ones((b, size, size, net.out_channels))
  inputs = dict(x=x, noise=jnp.zeros(b))
  inputs |= dict(lowres=x) if has_lowres else {}
  inputs |= dict(label=jnp.zeros(b, jnp.int32)) if net.num_classes else {}
  init = functools.partial(net.init, train=False)
  variables = jax.jit(init)(jax.random.key(0, impl='rbg'), **inputs)
  total = sum(leaf.size for leaf in jax.tree.leaves(variables))

  def forward(variables, inputs):
    return net.apply(variables, **inputs, train=False)

  def train(variables, inputs):
    return jax.grad(lambda v: jnp.mean((forward(v, inputs) - 1) ** 2))(
      variables
    )

  args = (variables, inputs)
  lowered = jax.jit(forward).lower(*args)
  flops = (lowered.cost_analysis() or {}).get('flops', math.nan)
  limit = matmul_rate(net.dtype, flags.repeats)
  print(
    f'{flags.net}: {total / 1e6:.1f}M parameters, {size} px, batch {b}, '
    f'{net.dtype}, remat {net.remat}; {flops / b / 1e9:.2f} GFLOP an image; '
    f'{jax.devices()[0].device_kind}, matmul {limit / 1e12:.3f} TFLOP/s'
  )
  step = jax.jit(train).lower(*args).compile()
  for name, compiled, times in (
    ('forward', lowered.compile(), 1),
    ('forward + backward', step, 3),
  ):
    spent = seconds(compiled, args, flags.repeats)
    rate = times * flops / spent
    print(
      f'  {name:18}  {b / spent:10.2f} images/s  {rate / 1e12:8.3f} TFLOP/s  '
      f'share {rate / limit:.2f}'
    )
  memory = step.memory_analysis()
  if memory is not None:
    print(
      f'  step needs {memory.temp_size_in_bytes / 2**30:.2f} GiB of its own'
    )


if __name__ == '__main__':
  main()
