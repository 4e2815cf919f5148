"""Compares XLA's options for CPUs, for gradients and for forward passes.

  python benchmarks/compiler_options.py --net=small --batch=16

compiles the forward pass and the gradient of a network of `unet_forward.py`
and the features of Inception-v3 three times each: as jaxlib does by default,
with only reductions in the YNNPACK library, and with nothing in it. They run
in turn, round after round; printed are seconds (the median), the ratio to the
default, and the largest relative difference from the default's result. To be
run again with each new jaxlib.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import unet_forward

from cdm.distributed.compiler_options import OPTION
from cdm.models.inception import Inception
from cdm.models.unet import UNet

VARIANTS = {
  'default': None,
  'reductions': {OPTION: 'LIBRARY_FUSION_TYPE_REDUCE'},
  'nothing': {OPTION: ''},
}


def programs(args):
  """-> {name: (function, its arguments)}."""
  size, has_lowres, fields = unet_forward.NETS[args.net]
  net = UNet(**fields)
  shape = (args.batch, size, size, 3)
  x = jax.random.normal(jax.random.key(1), shape)
  given = {'noise': jnp.zeros(args.batch)}
  if has_lowres:
    given['lowres'] = jax.random.normal(jax.random.key(2), shape)
  if net.num_classes is not None:
    given['label'] = jnp.zeros(args.batch, jnp.int32)
  init = jax.jit(lambda key: net.init(key, x, train=False, **given))
  # The last layer begins with zeros, and would hide every difference.
  variables = jax.tree.map(
    lambda leaf: leaf + 0.01, init(jax.random.key(0, impl='rbg'))
  )

  def forward(variables, x):
    return net.apply(variables, x, train=False, **given)

  def loss(variables, x):
    return jnp.square(jax.tree.leaves(forward(variables, x))[0]).mean()

  inception = Inception()
  image = jnp.zeros((8, 256, 256, 3), jnp.uint8)
  weights = jax.jit(inception.init)(jax.random.key(0), image)
  return {
    'forward': (forward, (variables, x)),
    'gradient': (jax.grad(loss), (variables, x)),
    'Inception-v3, batch 8': (inception.apply, (weights, image)),
  }


def difference(a, b):
  """-> the largest |a - b| over the largest |b|, over all arrays."""
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(
    float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-12)) for x, y in pairs
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--net', default='small', choices=sorted(unet_forward.NETS)
  )
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=7)
  args = parser.parse_args()
  for name, (function, given) in programs(args).items():
    compiled, results, seconds = {}, {}, {kind: [] for kind in VARIANTS}
    for kind, options in VARIANTS.items():
      run = jax.jit(function).lower(*given).compile(compiler_options=options)
      compiled[kind] = run
      results[kind] = jax.device_get(run(*given))
    for _ in range(args.rounds):
      for kind, run in compiled.items():
        start = time.perf_counter()
        jax.block_until_ready(run(*given))
        seconds[kind].append(time.perf_counter() - start)
    median = {kind: statistics.median(s) for kind, s in seconds.items()}
    for kind in VARIANTS:
      print(
        f'{name:22} {kind:11} {median[kind]:8.3f} s  '
        f'{median[kind] / median["default"]:5.2f} of the default  '
        f'differs by {difference(results[kind], results["default"]):.1e}',
        flush=True,
      )


if __name__ == '__main__':
  main()
