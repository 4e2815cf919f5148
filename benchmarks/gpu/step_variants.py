"""Times the training step of one model: its largest batch, remat, attention.

  step_variants.py --model=NAME --out=DIR [--dtype=bfloat16]
      [--remat=none,convolutions,full] [--attention=FORM,FORM] [--minutes=3]

The step is the program that `cdm train` compiles for the config. What it needs
is linear in the batch, so the compiler's own counts for two small batches, made
without autotuning, tell the largest batch that fits; it is then run, and made
smaller by an eighth if the memory does not suffice. A row has the batch, the
seconds of a step, images per second, MFU, peak memory and compile time. The
last line printed is {"batch": N} of the first variant.
"""

import argparse
import itertools
import json
import pathlib
import sys
import time

import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import result_rows  # noqa: E402
from cdm.distributed import device_specs, exit_codes  # noqa: E402
from cdm.models import flops, unet, unet_plan  # noqa: E402
from cdm.training import program  # noqa: E402
from cdm.training import state as states  # noqa: E402

# What the allocator of XLA cannot use, and what it loses to gaps.
SHARE = 0.92
MOST_BATCH = 1024
ROUNDS, STEPS_OF_ROUND = 5, 4
TRIES = 4
TRAINING_PASSES = 3  # a gradient costs two forward passes


def main(argv=None):
  """Adds a row for every variant until the time is used up."""
  args = parse(argv)
  end = time.monotonic() + 60 * args.minutes
  rows = result_rows.Rows(args.out, 'step_variants', smoke=args.smoke)
  first = None
  for remat, attention in itertools.product(args.remat, args.attention):
    if first is not None and time.monotonic() > end:
      break
    words = [('model.remat', remat)]
    words += [('model.attention', attention)] if attention else []
    batch, bytes_of = largest_batch(args, words)
    for _ in range(TRIES):
      try:
        figures = timed(config(args, words, batch))
        break
      except Exception as error:
        if exit_codes.classify(error) != exit_codes.OUT_OF_MEMORY:
          raise
        rows.add(model=args.model, remat=remat, too_large_batch=batch)
        batch = max(1, batch - max(1, batch // 8))
    else:
      continue
    first = first or batch
    rows.add(
      model=args.model,
      dtype=args.dtype,
      remat=remat,
      attention=attention or 'default',
      batch=batch,
      **figures,
      **bytes_of,
    )
  print(json.dumps({'batch': first}), flush=True)


def parse(argv):
  """Returns the arguments, lists as lists."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--model', required=True)
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--dtype', default='bfloat16')
  parser.add_argument('--remat', default=','.join(unet_plan.REMAT))
  parser.add_argument('--attention', default='', help='default: the config')
  parser.add_argument('--memory_gib', type=float, help='default: all')
  parser.add_argument('--minutes', type=float, default=3.0)
  parser.add_argument('--smoke', action='store_true')
  args = parser.parse_args(argv)
  args.remat = args.remat.split(',')
  args.attention = args.attention.split(',')
  if args.attention != [''] and 'attention' not in unet.UNet.__annotations__:
    raise SystemExit('--attention: this U-Net has one form of attention.')
  return args


def config(args, words, batch):
  """Returns the config of a model with a batch."""
  from benchmarks import step_models

  if args.model not in step_models.MODELS:
    raise SystemExit(
      f'--model is {args.model!r}; the models are '
      f'{", ".join(step_models.MODELS)}.'
    )
  model = step_models.MODELS[args.model]
  return step_models.load(
    step_models.CONFIGS / model.config,
    (*model.overrides, *words),
    batch=batch,
    dtype=args.dtype,
  )


def largest_batch(args, words):
  """Returns (batch, figures): the largest one by the compiler's counts."""
  small, double = (2, 4) if args.smoke else (8, 16)
  one = needed_bytes(config(args, words, small))
  two = needed_bytes(config(args, words, double))
  per_image = max(1, (two - one) // (double - small))
  fixed = one - small * per_image
  limit = memory_limit(args)
  figures = {
    'bytes_per_image': per_image,
    'fixed_bytes': fixed,
    'limit_bytes': limit,
  }
  batch = int((SHARE * limit - fixed) // per_image)
  if batch < 1:
    raise SystemExit(
      f'{args.model} needs {fixed + per_image} bytes for one image, above '
      f'{SHARE:g} of {limit}.'
    )
  if args.smoke:
    return min(batch, double), figures
  unit = 8 if batch >= 16 else 1
  return min(batch // unit * unit, MOST_BATCH), figures


def needed_bytes(c):
  """Returns the bytes of a step by the compiler's counts, not autotuned."""
  assembled = program.assemble(c, devices=jax.local_devices()[:1])
  lowered = assembled.step.lower(assembled.state, assembled.batch)
  options = None
  if jax.default_backend() == 'gpu':
    options = {'xla_gpu_autotune_level': '0'}
  memory = lowered.compile(compiler_options=options).memory_analysis()
  return (
    memory.temp_size_in_bytes
    + memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
  )


def memory_limit(args):
  """Returns the bytes that a program may fill on the device."""
  if args.memory_gib is not None:
    return int(args.memory_gib * 2**30)
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' not in stats:
    return 2 * 2**30  # a CPU's memory is shared with other programs
  return stats['bytes_limit']


def timed(c):
  """Compiles and runs the step of a config; -> its figures."""
  assembled = program.assemble(c, devices=jax.local_devices()[:1])
  began = time.perf_counter()
  step = assembled.step.lower(assembled.state, assembled.batch).compile()
  compile_seconds = time.perf_counter() - began
  state = states.make_state(
    assembled.built.method.init,
    assembled.tx,
    key=assembled.key,
    abstract=assembled.state,
  )
  batch = random_batch(assembled, c)
  state, _ = jax.block_until_ready(step(state, batch))
  times = []
  for _ in range(ROUNDS):
    began = time.perf_counter()
    for _ in range(STEPS_OF_ROUND):
      state, scalars = step(state, batch)
    jax.block_until_ready((state, scalars))
    times.append((time.perf_counter() - began) / STEPS_OF_ROUND)
  seconds, size = float(np.median(times)), c.train.batch_size
  built = assembled.built
  work = TRAINING_PASSES * size * flops.trace(
    built.net, built.input_size, built.lowres is not None
  )[1]  # fmt: skip
  peak = device_specs.peak_flops(jax.devices()[0].device_kind)
  stats = jax.local_devices()[0].memory_stats() or {}
  return {
    'seconds': seconds,
    'fastest': min(times),
    'slowest': max(times),
    'images_per_second': size / seconds,
    'tflops': work / seconds / 1e12,
    'mfu': work / seconds / peak if peak else None,
    'compile_seconds': compile_seconds,
    'peak_bytes': stats.get('peak_bytes_in_use'),
    'loss': float(scalars['loss']),
  }


def random_batch(assembled, c):
  """Returns a batch of random images and labels, where the step wants it."""
  rng = np.random.default_rng(0)
  classes = c.model.get('num_classes') or 1
  batch = {
    'image': rng.integers(0, 256, assembled.batch['image'].shape, np.uint8),
    'label': rng.integers(0, classes, c.train.batch_size, np.int32),
  }
  places = {name: x.sharding for name, x in assembled.batch.items()}
  return jax.device_put(batch, places)


if __name__ == '__main__':
  main()
