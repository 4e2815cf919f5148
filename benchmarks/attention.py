"""Compares the forms of attention: bytes, seconds and numbers.

  python benchmarks/attention.py --side=64 --heads=4 --width=64 --batch=8

compiles one attention over a feature map of side x side pixels and its
gradient by q, k and v, in each form of `attention_products.FORMS`, for one
device. Printed are the bytes of temporary arrays as the compiler counts them,
the seconds of a call (the median of rounds that take turns), and the largest
difference from 'plain' over its largest value. `--compile` runs nothing: then
only bytes are printed, which other work on the machine does not change.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from cdm.distributed import device_mesh
from cdm.models import attention_products


def program(form, mesh, *, is_gradient):
  """-> the jitted attention in a form, or its gradient."""

  def attend(q, k, v):
    return attention_products.attend(q, k, v, form)

  def total(q, k, v):
    return jnp.square(attend(q, k, v).astype(jnp.float32)).sum()

  function = jax.grad(total, (0, 1, 2)) if is_gradient else attend
  return jax.jit(device_mesh.in_mesh(function, mesh))


def difference(mine, expected):
  """-> the largest |a - b| over the largest |b|, over all arrays."""
  pairs = zip(jax.tree.leaves(mine), jax.tree.leaves(expected), strict=True)
  floats = [[np.asarray(x, np.float32) for x in pair] for pair in pairs]
  return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in floats)


def median_seconds(programs, given, rounds):
  """-> {form: the median seconds of a call}, the forms in turn."""
  seconds = {form: [] for form in programs}
  for _ in range(rounds):
    for form, run in programs.items():
      start = time.perf_counter()
      jax.block_until_ready(run(*given))
      seconds[form].append(time.perf_counter() - start)
  return {form: statistics.median(values) for form, values in seconds.items()}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--side', type=int, default=64)
  parser.add_argument('--heads', type=int, default=4)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--dtype', default='bfloat16')
  parser.add_argument('--rounds', type=int, default=10)
  parser.add_argument('--compile', action='store_true')
  args = parser.parse_args()
  mesh = device_mesh.make_mesh(devices=jax.devices()[:1])
  shape = (args.batch, args.side**2, args.heads, args.width)
  given = [
    jax.random.normal(jax.random.key(n), shape, jnp.dtype(args.dtype))
    for n in range(3)
  ]
  print(f'{shape} {args.dtype} on {jax.devices()[0].device_kind}')
  for is_gradient in (False, True):
    programs = {
      form: program(form, mesh, is_gradient=is_gradient).lower(*given).compile()
      for form in attention_products.FORMS
    }
    seconds, differences = {}, {}
    if not args.compile:
      expected = jax.device_get(programs['plain'](*given))
      for form, run in programs.items():
        differences[form] = difference(jax.device_get(run(*given)), expected)
      seconds = median_seconds(programs, given, args.rounds)
    for form, run in programs.items():
      size = run.memory_analysis().temp_size_in_bytes / 2**20
      line = (
        f'{"gradient" if is_gradient else "forward"} {form}: {size:.0f} MiB'
      )
      if form in seconds:
        line += f', {seconds[form]:.4f} s, off by {differences[form]:.1e}'
      print(line, flush=True)


if __name__ == '__main__':
  main()
