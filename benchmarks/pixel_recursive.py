"""Speed of pixel recursive sampling: kept activations against naive re-runs.

  python benchmarks/pixel_recursive.py --size=32 --batch=4

times two ways to draw the same images with the same network and keys, in turn:

  kept   `PixelRecursive.walk`, which keeps what the layers computed for earlier
         pixels, so that a sub-pixel costs one column of features
  naive  the whole prior runs anew for every sub-pixel; the conditioning network
         runs once, and all naive sub-pixels cost the same, so that only the
         first --sub_pixels are timed and the time of an image is extrapolated

and the first way at half the size too: a time that is linear in the pixels is
then a quarter.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp

from cdm.models.pixel_recursive import PixelRecursive

COLOURS = 3
SMALL = dict(
  features=32,
  num_layers=6,
  hidden_features=128,
  conditioning_features=32,
  conditioning_blocks=2,
)
NETS = {'paper': {}, 'small': SMALL}


def naive(net, params, lowres, pick, count=None):
  """Draws as `PixelRecursive.walk`, running the prior anew for each sub-pixel.

  Args:
    net: a `PixelRecursive`.
    params, lowres, pick: see `PixelRecursive.walk`.
    count: number of sub-pixels to draw; None draws all.

  Returns:
    (levels int32 [B, H, W, 3], notes [count, ...]).
  """
  bound = {'params': params}
  conditioning = net.apply(bound, lowres, method='condition')
  b, height, width = conditioning.shape[:3]

  def one_sub_pixel(levels, s):
    prior = net.apply(bound, levels, method=lambda net, x: net.prior(x))
    logits = (conditioning + prior).reshape(b, height * width * COLOURS, -1)
    logits = jax.lax.dynamic_index_in_dim(logits, s, 1, keepdims=False)
    level, notes = pick(logits, s)
    flat = levels.reshape(b, -1).at[:, s].set(level.astype(jnp.int32))
    return flat.reshape(levels.shape), notes

  return jax.lax.scan(
    one_sub_pixel,
    jnp.zeros((b, height, width, COLOURS), jnp.int32),
    jnp.arange(height * width * COLOURS if count is None else count),
  )


def draw(logits, s):
  """Picks a level at random, one draw for each image."""
  noise = jax.random.gumbel(jax.random.key(s), logits.shape)
  return jnp.argmax(logits + noise, axis=-1), ()


def seconds(compiled, args, repeats):
  """Returns the shortest of `repeats` runs, after one that does not count."""
  times = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*args))
    times.append(time.perf_counter() - start)
  return min(times[1:])


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--net', choices=NETS, default='paper')
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--sub_pixels', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=2)
  options = parser.parse_args()
  net = PixelRecursive(magnification=4, **NETS[options.net])
  n, b = options.size, options.batch

  def low(size):
    return jnp.linspace(-1, 1, b * (size // 4) ** 2 * 3).reshape(
      b, size // 4, size // 4, 3
    )

  params = jax.jit(functools.partial(net.init, train=False))(
    jax.random.key(0), jnp.zeros((1, n, n, 3)), lowres=low(n)[:1]
  )['params']
  total = 3 * n * n
  count = min(options.sub_pixels, total)
  kept = jax.jit(lambda p, z: net.walk(p, z, draw)[0])
  again = jax.jit(lambda p, z: naive(net, p, z, draw, count)[0])
  print(f'{options.net} network, {b} images of {n} px on {jax.devices()[0]}')
  for number in range(options.rounds):
    quick = seconds(kept, (params, low(n)), 1)
    slow = seconds(again, (params, low(n)), 1) * total / count
    half = seconds(kept, (params, low(n // 2)), 1)
    print(
      f'round {number}: kept {quick / b:.3f} s per image '
      f'({1e6 * quick / total:.0f} us per sub-pixel), naive {slow / b:.1f} s '
      f'(from {count} of {total} sub-pixels): {slow / quick:.0f} times slower; '
      f'at {n // 2} px kept takes 1/{quick / half:.2f} of its time'
    )


if __name__ == '__main__':
  main()
