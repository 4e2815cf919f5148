"""Counts compilations and seconds of a sweep, before and after sharing.

  python benchmarks/sweep.py --config=configs/smoke_cascade.py --workdir=DIR \\
      --key=stages.sr.level --values=0,0.05,0.1,0.15,0.2 --num=64

Draws the images of every value twice: once as if each were a sweep of its own,
once as `cdm sweep` does, with shared programs and kept images. The network that
judges images is left out. The images of both are compared.
"""

import argparse
import tempfile
import time

import jax
import numpy as np

from cdm.evaluation import image_source, sweep
from cdm.evaluation.image_selection import Selection
from cdm.sampling import kept_images

COMPILED = '/jax/core/compile/backend_compile_duration'


def draw(samples, settings, num, kept):
  """Returns ({setting: images}, seconds, programs compiled)."""
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: event == COMPILED and compiled.append(seconds)
  )
  images, start = {}, time.perf_counter()
  order = (
    settings if kept is None else sweep.drawing_order(settings, samples, kept)
  )
  for setting in order:
    selection = Selection(num=num, overrides=setting)
    source = image_source.resolve(samples, selection, kept=kept)
    parts = [x for _, x in source.batches(0, num) if x is not None]
    images[setting] = np.concatenate(parts)
  seconds = time.perf_counter() - start
  return images, seconds, len(compiled)


def main():
  """Prints one line for each way."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--config', required=True)
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--key', required=True)
  parser.add_argument('--values', required=True)
  parser.add_argument('--num', type=int, default=64)
  args = parser.parse_args()
  samples = f'{args.config}@{args.workdir}'
  settings = sweep.settings([f'{args.key}={args.values}'])
  before, *alone = draw(samples, settings, args.num, None)
  jax.clear_caches()
  with tempfile.TemporaryDirectory() as folder:
    kept = kept_images.Kept(folder)
    after, *shared = draw(samples, settings, args.num, kept)
  for name, (seconds, compiled) in (('alone', alone), ('shared', shared)):
    print(
      f'{name}: {len(settings)} settings in {seconds:.1f} s, {compiled} '
      'compilations'
    )
  same = all(np.array_equal(before[s], after[s]) for s in settings)
  print(f'the images are {"the same" if same else "NOT the same"}')


if __name__ == '__main__':
  main()
