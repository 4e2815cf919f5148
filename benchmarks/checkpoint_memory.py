"""Host memory and time of one save after another.

  python benchmarks/checkpoint_memory.py [--saves=50] [--megabytes=64]

Saves a state of random numbers again and again, as a run does, changed in
between, and prints after each save the resident memory, how long the run was
held up and how long the save took in all. At the end: megabytes per save by
which memory grew over the second half (least squares), the medians, and how
long comparing the checksums takes. Memory that grows from save to save ends a
run of days; the figure to expect is zero within the noise of the allocator.
"""

import argparse
import os
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from cdm.checkpointing import checksums, reader, writer

# Needs /proc, and so Linux.
PAGE_BYTES = os.sysconf('SC_PAGE_SIZE')


def resident_bytes():
  with open('/proc/self/statm', encoding='utf-8') as file:
    return int(file.read().split()[1]) * PAGE_BYTES


def make(megabytes):
  """-> {name: [n] float32}: sixteen arrays, together so large."""
  n = megabytes * (1 << 20) // (16 * 4)
  keys = jax.random.split(jax.random.key(0), 16)
  return {f'array{i}': jax.random.normal(k, (n,)) for i, k in enumerate(keys)}


def measure(workdir, saves, megabytes):
  state = make(megabytes)
  change = jax.jit(
    lambda tree: jax.tree.map(lambda x: x + jnp.float32(1e-3), tree),
    donate_argnums=0,
  )
  rows = []
  with writer.Checkpointer(workdir, config='{}', keep=2) as saver:
    for step in range(1, saves + 1):
      state = jax.block_until_ready(change(state))
      began = time.perf_counter()
      saver.save(step, state, data_state={'position': step})
      held = time.perf_counter() - began
      saver.wait()
      took = time.perf_counter() - began
      rows.append((resident_bytes() / 1e6, held, took))
      print(
        f'save {step}: {rows[-1][0]:.1f} MB resident, held up for '
        f'{held:.3f} s, complete after {took:.3f} s',
        flush=True,
      )
    newest = saver.steps()[-1]
  path = os.path.join(workdir, reader.CHECKPOINTS, str(newest))
  began = time.perf_counter()
  checksums.check(path)
  return np.array(rows), time.perf_counter() - began


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--saves', type=int, default=50)
  parser.add_argument('--megabytes', type=int, default=64)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as workdir:
    rows, check = measure(workdir, args.saves, args.megabytes)
  half = rows[len(rows) // 2 :]
  slope = np.polyfit(np.arange(len(half)), half[:, 0], 1)[0]
  held, took = (statistics.median(rows[:, i]) for i in (1, 2))
  print(
    f'{len(rows)} saves of {args.megabytes} MB: resident {rows[0, 0]:.1f} MB '
    f'after the first, {rows[-1, 0]:.1f} MB after the last, peak '
    f'{rows[:, 0].max():.1f} MB; slope {slope:+.3f} MB per save over the '
    f'second half; held up for {held:.3f} s, complete after {took:.3f} s '
    f'(medians); checksums compared in {check:.3f} s'
  )


if __name__ == '__main__':
  main()
