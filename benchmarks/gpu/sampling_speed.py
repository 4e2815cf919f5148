"""Measures the speed of sampling: images per second, and what costs it.

  python benchmarks/gpu/run.py 3 OUT --prepared=FOLDER [-- --models=NAME,...
      --minutes=8]

Every network of the table is drawn with random weights, which cost as much as
trained ones, for one image and for a large batch, with 1 to 256 evaluations of
the network. The loop that cdm draws with takes the grid as an argument, so that
all numbers of steps share one compiled program. A row has

  seconds_per_image, images_per_second    the median of the rounds
  first_seconds      the first call, which compiles where no other has
  outside_fraction   1 - N times the bare network / the loop, of the same run
  tflops, mfu        of the network's products, over the peak of the chip

in the order of the worth of a row, until the time is used up.
"""

import argparse
import functools
import math
import pathlib
import sys
import time
from typing import NamedTuple

import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import result_rows  # noqa: E402
from cdm.config import loader, stage  # noqa: E402
from cdm.distributed import (  # noqa: E402
  compiler_options,
  device_specs,
  exit_codes,
)
from cdm.models import flops  # noqa: E402


class Model(NamedTuple):
  """A network of the table.

  Attributes:
    config: file in configs/, without .py.
    batch: large batch; the images of one evaluation fit any card of 80 GB.
    words: ((dotted key, text), ...), changes of the config.
  """

  config: str
  batch: int
  words: tuple[tuple[str, str], ...] = ()


BFLOAT16 = (('model.dtype', 'bfloat16'),)
MODELS = {
  'faces20m': Model('faces_small_16to128', 256, BFLOAT16),
  'sr3_16to128': Model('sr3_faces16to128', 64, BFLOAT16),
  'cdm64to256': Model('cdm_imagenet64to256', 32, BFLOAT16),
  'cdm64': Model('cdm_imagenet64', 128, BFLOAT16),
}
SMOKE_MODELS = {'smoke_sr': Model('smoke_sr', 4)}
# In the order of their worth; the first is the one that others are told from.
STEPS = (50, 4, 1, 8, 256)
SMOKE_STEPS = (3, 1)
ROUNDS = 5
COLUMNS = (
  'model', 'batch', 'steps', 'images_per_second', 'seconds_per_image',
  'first_seconds', 'outside_fraction', 'tflops', 'mfu',
)  # fmt: skip


def main(argv=None):
  """Measures row after row until the time is used up."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ('--out', '--work', '--prepared'):
    parser.add_argument(name, required=True, type=pathlib.Path)
  parser.add_argument('--models', default='', help='default: all')
  parser.add_argument('--minutes', type=float, default=8.0)
  parser.add_argument(
    '--most_seconds', type=float, default=20.0, help='of one call of the loop'
  )
  parser.add_argument('--smoke', action='store_true')
  args = parser.parse_args(argv)
  known = SMOKE_MODELS if args.smoke else MODELS
  names = [n for n in args.models.split(',') if n] or list(known)
  for name in names:
    if name not in known:
      raise SystemExit(
        f'--models names {name!r}; the models are {", ".join(known)}.'
      )
  # A test measures everything, on a machine as slow as it may be.
  end = math.inf if args.smoke else time.monotonic() + 60 * args.minutes
  rows = result_rows.Rows(args.out, 'sampling_speed', smoke=args.smoke)
  for name in names:
    for batch in (known[name].batch, 1):
      if time.monotonic() > end:
        continue
      try:
        measure(name, known[name], batch, args, rows, end)
      except Exception as error:
        if exit_codes.classify(error) != exit_codes.OUT_OF_MEMORY:
          raise
        rows.add(model=name, batch=batch, failed='out of memory')
  if not rows.rows:
    raise SystemExit(
      f'Nothing was measured in {args.minutes:g} minutes; give more --minutes, '
      'or fewer --models.'
    )
  result_rows.write_table(args.out, 'sampling_speed.md', rows.rows, COLUMNS)


def measure(name, model, batch, args, rows, end):
  """Adds the rows of one network and one batch."""
  built = built_stage(model)
  params = random_parameters(built)
  network, loop, inputs = programs(built, batch)
  evaluation = median_seconds(lambda: network(params, *inputs), end)
  per_image = flops.trace(
    built.net, built.input_size, built.lowres is not None
  )[1]
  for steps in SMOKE_STEPS if args.smoke else STEPS:
    # A call that is known to be too long is left out, and says so.
    expected = steps * evaluation.median
    if time.monotonic() + 2 * expected > end:
      return
    if expected > args.most_seconds:
      rows.add(model=name, batch=batch, steps=steps, left_out_seconds=expected)
      continue
    tuned = built_stage(model, steps).method.tune(None)
    spent = median_seconds(lambda t=tuned: loop(params, t, *inputs), end)
    work = per_image * batch * steps / spent.median
    rows.add(
      model=name,
      config=model.config,
      batch=batch,
      steps=steps,
      evaluations=steps,
      images_per_second=batch / spent.median,
      seconds_per_image=spent.median / batch,
      first_seconds=spent.first,
      fastest=spent.fastest / batch,
      slowest=spent.slowest / batch,
      network_seconds=evaluation.median,
      outside_fraction=1 - steps * evaluation.median / spent.median,
      tflops=work / 1e12,
      mfu=share_of_peak(work),
      peak_bytes=peak_bytes(),
      dtype=built.net.dtype,
    )


def built_stage(model, steps=STEPS[0]):
  """Builds the stage of a model, with a grid of so many steps, unguided."""
  c = loader.load(f'configs/{model.config}.py', [])
  words = [
    ('sampler.guidance_weight', '0.0'),
    ('sampler.grid.kind', 'uniform_logsnr'),
    ('sampler.grid.num_steps', str(steps)),
  ]
  loader.override_all(c, [*model.words, *words])
  return stage.stage(c)


def random_parameters(built):
  """Returns parameters that are random; zeros would make a GPU faster."""
  params = jax.jit(built.method.init)(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  noisy = jax.jit(
    lambda xs: [
      x + 0.02 * jax.random.normal(jax.random.fold_in(jax.random.key(1), i),
                                   x.shape)
      for i, x in enumerate(xs)
    ]
  )  # fmt: skip
  return jax.tree.unflatten(structure, noisy(leaves))


def programs(built, batch):
  """Returns (bare network, sampling loop, their inputs) of a batch.

  network(params, *inputs) evaluates the network once, and loop(params, tuned,
  *inputs) draws the batch.
  """
  size = built.input_size
  rng = np.random.default_rng(0)
  label = np.zeros(batch, np.int32)
  lowres = None
  if built.lowres is not None:
    shape = (batch, built.lowres.size, built.lowres.size, 3)
    lowres = rng.uniform(-1, 1, shape).astype(np.float32)
  labelled = label if built.net.num_classes is not None else None
  x = rng.standard_normal((batch, size, size, 3)).astype(np.float32)
  jit = functools.partial(
    jax.jit, compiler_options=compiler_options.for_devices(jax.devices())
  )

  @jit
  def network(params, x, label, lowres):
    conditions = {}
    if label is not None:
      conditions['label'] = label
    if lowres is not None:
      conditions['lowres'] = x
    if built.net.lowres_level:
      conditions['lowres_level'] = jax.numpy.zeros(batch)
    return built.net.apply(
      {'params': params}, x, jax.numpy.zeros(batch), train=False, **conditions
    )

  @jit
  def loop(params, tuned, x, label, lowres):
    del x
    keys = jax.random.split(jax.random.key(2), batch)
    return built.method.sample(
      params, keys=keys, label=label, lowres=lowres, tuned=tuned
    )

  return network, loop, jax.device_put((x, labelled, lowres))


class Spent(NamedTuple):
  """Seconds of the calls of a program; `first` compiles."""

  first: float
  median: float
  fastest: float
  slowest: float


def median_seconds(call, end):
  """Times a call `ROUNDS` times after the first; fewer when time runs out."""

  def once():
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began

  first, times = once(), []
  while len(times) < ROUNDS:
    times.append(once())
    if time.monotonic() > end:
      break
  return Spent(first, float(np.median(times)), min(times), max(times))


def share_of_peak(work):
  """Returns FLOPs per second over the peak of the device; None if unknown."""
  peak = device_specs.peak_flops(jax.devices()[0].device_kind)
  return None if peak is None else work / peak


def peak_bytes():
  """Returns the most memory that the process has had on the device."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get('peak_bytes_in_use')


if __name__ == '__main__':
  main()
