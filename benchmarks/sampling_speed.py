"""Seconds per picture of a sampler, and the share spent outside the network.

  python benchmarks/sampling_speed.py --config=configs/cdm_imagenet64.py \\
      --batch=8 [--set sampler.num_steps=50 ...] [--rounds=5]
  python benchmarks/sampling_speed.py --smoke

Draws batches with one stage, a base or a super-resolution one, whose parameters
are random, on all devices, with the program that `cdm sample` and `cdm upscale`
run. Then it runs the bare network as often as drawing a batch does, in one loop
with the same batch, dtype and mesh. Rounds take turns, so what else the machine
does hits both alike. It prints

  compiled           seconds of the first batch, compilation included
  per picture        seconds, with compilation (of one batch) and without
  outside            1 - (seconds of the bare network) / (seconds of drawing):
                     noise, clipping, the sampler's own step, the low-res input

What the compiler fuses with the network's last layer in the sampler's loop can
make the share slightly negative. --smoke shows that the script runs, nothing
else.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from cdm.config import loader, placement
from cdm.config import stage as build
from cdm.distributed import device_mesh
from cdm.methods import parameter_cast
from cdm.ops import keys as ops_keys
from cdm.sampling import cascade, upscaler


def made(config, overrides):
  """-> (built stage, `cascade.Stage` with random parameters)."""
  c = loader.load(config, overrides)
  built = build.stage(c)
  if built.schedule is None:
    raise SystemExit(f'{config} describes no diffusion.')
  mesh = placement.drawing_mesh(c.mesh, jax.devices())
  places = placement.placed_params(built.method, c.mesh, mesh)
  shardings = jax.tree.map(lambda x: x.sharding, places)

  def random(key):
    # The last layers are zero at first, and a compiler could not know.
    return jax.tree.map(lambda x: x + 0.01, built.method.init(key))

  params = jax.jit(random, out_shardings=shardings)(jax.random.key(0))
  params = built.prepared(params, mesh)
  return built, cascade.Stage.of(built, params, mesh, name=c.name)


def drawing(stage, size):
  """-> function that draws one batch of `size` images."""
  labels = None
  if stage.num_classes is not None:
    labels = np.arange(size, dtype=np.int32) % stage.num_classes
  if stage.lowres is None:
    (run,) = cascade.stage_runs([stage])
    return lambda: run(stage.params, 0, np.arange(size), labels, None)
  draw = upscaler.jit_upscaling(stage)
  rng = np.random.default_rng(0)
  shape = (size, stage.lowres.size, stage.lowres.size, 3)
  lowres = rng.integers(256, size=shape, dtype=np.uint8)
  pairs = ops_keys.seed_pairs(0, np.arange(size))
  return lambda: draw(stage.params, lowres, pairs, labels)


def network(built, stage, size):
  """-> function that runs the bare network as often as drawing a batch does.

  Each run takes the output of the one before.
  """
  net, side = built.net, stage.image_size
  x = jax.random.normal(jax.random.key(1), (size, side, side, 3))
  noise = None if net.condition_on == 'nothing' else jnp.linspace(0.1, 1, size)
  given = {}
  if net.num_classes is not None:
    given['label'] = jnp.arange(size) % net.num_classes
  if stage.lowres is not None:
    given['lowres'] = x
  if net.lowres_level:
    given['lowres_level'] = jnp.zeros(size)

  @stage.jit
  def run(params, x, noise, given):
    x, noise, given = stage.split((x, noise, given))
    params = stage.boxed(params)

    def step(_, x):
      bound = params
      if stage.boxes is not None:  # as the sampler gathers them in every step
        bound, x = jax.lax.optimization_barrier((params, x))
      y = net.apply({'params': bound}, x, noise, train=False, **given)
      return y[..., : x.shape[-1]]

    return jax.lax.fori_loop(0, built.evaluations, step, x)

  cast = jax.jit(
    functools.partial(parameter_cast.cast, dtype_of=net.parameter_dtype)
  )(stage.params)
  return lambda: run(cast, x, noise, given)


def seconds(run):
  """Returns the seconds until the result is there."""
  start = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - start


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--config', default='configs/smoke_sr.py')
  parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--smoke', action='store_true', help='a tiny stage')
  args = parser.parse_args()
  if args.smoke:
    args.config, args.batch, args.rounds = 'configs/smoke_sr.py', 2, 2
  overrides = [tuple(given.split('=', 1)) for given in args.set]
  built, stage = made(args.config, overrides)
  size = device_mesh.padded_batch_size(args.batch, stage.mesh)
  draw, evaluate = drawing(stage, size), network(built, stage, size)
  first = seconds(draw)
  seconds(evaluate)  # compiles it
  loops, nets = [], []
  for _ in range(args.rounds):
    loops.append(seconds(draw))
    nets.append(seconds(evaluate))
  share = 1 - np.divide(nets, loops)
  print(
    f'{args.config} {args.set}, batch {size}, {jax.devices()[0].device_kind}'
  )
  print(f'network evaluated {built.evaluations} times per picture')
  print(f'compiled     {first:.3f} s for the first batch')
  print(
    f'per picture  {first / size:.4f} s with compilation, '
    f'{np.median(loops) / size:.4f} s without'
  )
  print(
    f'outside      {np.median(share):.1%} of the loop '
    f'({share.min():.1%} to {share.max():.1%})'
  )


if __name__ == '__main__':
  main()
