"""Classifier-free guidance in one call of the network per step, against two.

  python benchmarks/guidance.py --config=configs/images_small_64.py \\
      [--batches=1,4,16,64] [--set KEY=VALUE ...] [--steps=8] [--rounds=5]
  python benchmarks/guidance.py ... --topology=v6e:1x1
  python benchmarks/guidance.py --smoke

Draws batches of a base stage with both forms, `methods/paired_call.py`, in
turns, so that what else the machine does hits both alike. For each number of
images on a device it prints

  one, two   milliseconds of a guided step, the medians of the rounds
  ratio      two / one: the median of the rounds, and the lowest and highest
  GB, GFLOP  of a step, by the compiler's own count of bytes read and written
  differ     the largest difference of their images, which are in [-1, 1]

A config without a null class gets one. With --topology both forms are compiled
for a slice of TPUs that need not exist, and only counted. --smoke shows that
the script runs, nothing else.
"""

import argparse
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from cdm.config import loader, placement
from cdm.config import stage as build
from cdm.distributed import device_mesh, device_specs
from cdm.methods import paired_call
from cdm.ops import keys as ops_keys
from cdm.planning import described_devices
from cdm.sampling import cascade

# {name: the bounds of paired_call}.
FORMS = {'one': 2**62, 'two': 0}


def made(args, devices):
  """-> (mesh, shapes of the parameters, `cascade.Stage` without them)."""
  overrides = [tuple(given.split('=', 1)) for given in args.set]
  c = loader.load(args.config, overrides)
  with c.unlocked():
    c.sampler.guidance_weight = c.sampler.guidance_weight or 1.0
    c.model.null_class = True
    c.method.label_dropout = c.method.label_dropout or 0.1
  if c.get('lowres') is not None or c.model.num_classes is None:
    raise SystemExit(f'{args.config} is no base stage with classes.')
  built = build.stage(c, sampler_steps=args.steps)
  mesh = placement.drawing_mesh(c.mesh, devices)
  places = placement.placed_params(built.method, c.mesh, mesh)
  return mesh, places, built, cascade.Stage.of(built, places, mesh, name=c.name)


def program(stage, form):
  """-> the jitted function that draws a batch in one of the two forms."""

  def run(params, indices, label):
    with mock.patch.multiple(
      paired_call,
      MOST_PIXELS=FORMS[form],
      MOST_PIXELS_ON_CPUS=FORMS[form],
    ):
      keys = ops_keys.image_keys(0, indices)
      keys, label = stage.split((keys, label))
      return stage.sample(stage.boxed(params), keys=keys, label=label)

  return stage.jit(run)


def counted(compiled):
  """-> (GB, GFLOP) of a step; a compiler counts the body of a loop once."""
  found = compiled.cost_analysis()
  found = found[0] if isinstance(found, list) else found
  return found.get('bytes accessed', 0) / 1e9, found.get('flops', 0) / 1e9


def timed(run, given):
  """-> (seconds, images)."""
  start = time.perf_counter()
  images = jax.block_until_ready(run(*given))
  return time.perf_counter() - start, images


def measure(args, size, mesh, places, stage, params):
  """Prints the line of one batch size, on all devices."""
  place = device_mesh.replicated(mesh)
  shapes = (
    places,
    jax.ShapeDtypeStruct((size,), jnp.uint32, sharding=place),
    jax.ShapeDtypeStruct((size,), jnp.int32, sharding=place),
  )
  compiled = {
    form: program(stage, form).lower(*shapes).compile() for form in FORMS
  }
  counts = {form: counted(compiled[form]) for form in FORMS}
  each = size // device_mesh.num_batch_shards(mesh)
  line = f'{each:6}'
  if params is not None:
    labels = np.arange(size, dtype=np.int32) % stage.num_classes
    given = jax.device_put((np.arange(size, dtype=np.uint32), labels), place)
    seconds, images = {form: [] for form in FORMS}, {}
    for turn in range(args.rounds + 1):
      for form in FORMS:
        took, images[form] = timed(compiled[form], (params, *given))
        if turn:  # the first warms up
          seconds[form].append(1e3 * took / args.steps)
    ratio = np.divide(seconds['two'], seconds['one'])
    one, two = (np.median(seconds[form]) for form in FORMS)
    line += f'{one:10.2f}{two:10.2f}{np.median(ratio):8.3f}'
    line += f' ({ratio.min():.3f} to {ratio.max():.3f})'
  line += ''.join(f'{value:10.3f}' for value in counts['one'] + counts['two'])
  if params is not None:
    line += f'{float(jnp.abs(images["one"] - images["two"]).max()):10.1e}'
  print(line, flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--config', default='configs/images_small_64.py')
  parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
  parser.add_argument('--batches', default='1,4,16,64', help='on each device')
  parser.add_argument('--steps', type=int, default=8)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--topology', help='only count, for such a slice')
  parser.add_argument('--smoke', action='store_true', help='a tiny stage')
  args = parser.parse_args()
  if args.smoke:
    args.config, args.batches = 'configs/smoke.py', '1,2'
    args.steps, args.rounds = 4, 2
  devices = jax.devices()
  if args.topology:
    devices = described_devices.of(device_specs.parse(args.topology))
  mesh, places, built, stage = made(args, devices)
  params = None
  if not args.topology:

    def random(key):
      # The last layers are zero at first, and a compiler could not know.
      return jax.tree.map(lambda x: x + 0.01, built.method.init(key))

    shardings = jax.tree.map(lambda x: x.sharding, places)
    params = jax.jit(random, out_shardings=shardings)(jax.random.key(0))
  print(f'{args.config} {args.set}, {len(devices)} x {devices[0].device_kind}')
  timing = '       one       two   ratio (lowest to highest)' * (
    not args.topology
  )
  print(f'images{timing}  GB one, GFLOP one, GB two, GFLOP two')
  for each in map(int, args.batches.split(',')):
    size = each * device_mesh.num_batch_shards(mesh)
    measure(args, size, mesh, places, stage, params)


if __name__ == '__main__':
  main()
