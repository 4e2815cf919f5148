"""The process of `train_step.py` that runs cdm.

A step is the program that `cdm train` compiles for the config: noise levels and
noise drawn, the low-res image made, the loss of the stage, its gradient,
clipping where the config has it, the optimizer, the average of the parameters
and the scalars of the log. A forward pass is the network alone, without
dropout.
"""

import functools
import math
import pathlib
import time
import zlib
from importlib import metadata

import flax
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import op_times, step_models, step_process
from cdm.distributed import (
  compiler_options,
  device_mesh,
  device_specs,
  source_commit,
)
from cdm.models import flops
from cdm.training import program
from cdm.training import state as states

CHECKED_IMAGES = 2  # one could not show that images are kept apart


def start(*, config, overrides, batch, dtype, tf32):
  """Returns the functions of the process, see `step_process.serve`.

  Args:
    config, overrides, batch, dtype: see `step_models.load`.
    tf32: whether products of float32 may use TensorFloat-32.
  """
  jax.config.update('jax_enable_compilation_cache', False)
  if not tf32:  # JAX's default is to use it.
    jax.config.update('jax_default_matmul_precision', 'highest')
  c = step_models.load(
    pathlib.Path(config), tuple(overrides), batch=batch, dtype=dtype
  )
  bench = Bench(c, program.assemble(c, devices=jax.local_devices()[:1]))
  return {
    'ready': bench.describe,
    'numbers': bench.numbers,
    'prepare': bench.prepare,
    'run': bench.run,
    'peak': bench.peak,
    'profile': bench.profile,
  }


class Bench:
  """The program of a config on one device."""

  def __init__(self, c, training):
    self.config, self.training = c, training
    self.net, self.size = training.built.net, c.pipeline.image_size
    self.device = training.mesh.devices.flat[0]
    self.lowres_channels = 0 if training.built.lowres is None else 3
    self.calls, self.steps_of_calls = None, {}

  def describe(self):
    """Returns all that a peer must know to do the same work."""
    training, net = self.training, self.net
    params, forward_flops = training.built.trace()
    fields = {
      name: getattr(net, name)
      for name in type(net).__dataclass_fields__
      if name not in ('parent', 'name')
    }
    return {
      'fields': fields,
      'image_size': self.size,
      'lowres_channels': self.lowres_channels,
      'batch': training.schedule.batch_size,
      'dtype': net.dtype,
      'parameters': flops.count_parameters(params),
      'forward_flops_per_image': forward_flops,
      'optimizer': self.config.optimizer.to_dict(),
      'ema_decay': self.config.ema.decay or 0.9999,
      'logsnr': np.asarray(training.built.schedule.logsnr).tolist(),
      'platform': self.device.platform,
      'device': self.device.device_kind,
      'peak_flops': device_specs.peak_flops(self.device.device_kind),
      'commit': source_commit.commit(),
      'versions': {
        name: metadata.version(name) for name in ('jax', 'jaxlib', 'flax')
      },
    }

  def numbers(self, path):
    """Writes parameters, inputs, output and gradient of the network.

    All in float32, without dropout. The loss is the mean square of the output
    less a target.

    Args:
      path: the .npz file to write.
    """
    net = self.net.clone(dtype='float32', remat='none')
    inputs = _inputs(net, CHECKED_IMAGES, self.size, self.lowres_channels)
    params = _filled(self.training.state.params)
    shape = jax.eval_shape(
      functools.partial(_predict, net), params, inputs
    ).shape
    target = np.random.default_rng(2).standard_normal(shape).astype(np.float32)

    def loss(params):
      output = _predict(net, params, inputs)
      return jnp.square(output - target).mean(), output

    with jax.default_matmul_precision('highest'):
      gradient = jax.jit(
        jax.grad(loss, has_aux=True),
        compiler_options=compiler_options.for_devices([self.device]),
      )
      grads, output = jax.device_get(gradient(jax.device_put(params)))
    np.savez(
      path,
      output=output,
      target=target,
      **{f'input/{name}': value for name, value in inputs.items()},
      **{f'param/{name}': value for name, value in _flat(params).items()},
      **{f'grad/{name}': value for name, value in _flat(grads).items()},
    )
    return {}

  def prepare(self, what):
    """Compiles the program of `what` and runs it once.

    Args:
      what: 'step' or 'forward'.

    Returns:
      dict of the seconds that this took, and the compiler's own counts.
    """
    self.calls = None  # The state of the program before is freed.
    make = {'step': self._train, 'forward': self._forward}[what]
    lower, call = make()
    begin = time.perf_counter()
    compiled = lower()
    self.calls = functools.partial(call, compiled)
    self.compiled = compiled
    jax.block_until_ready(self.calls())
    seconds = time.perf_counter() - begin
    cost = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    return {
      'first_seconds': seconds,
      'compiled_flops': cost.get('flops'),
      'compiled_bytes_accessed': cost.get('bytes accessed'),
      # What is donated is both an argument and an output.
      'planned_bytes': memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes
      + memory.temp_size_in_bytes,
    }

  def run(self, steps):
    """Runs the program some times; returns the seconds of all."""
    step_process.forget_peak()
    begin = time.perf_counter()
    for _ in range(steps):
      last = self.calls()
    jax.block_until_ready(last)
    return {'seconds': time.perf_counter() - begin}

  def peak(self):
    """Returns the most memory held: of the device, or on a CPU of the process.

    A device counts from the start of the process, a CPU from the last `run`.
    """
    stats = self.device.memory_stats() or {}
    if self.device.platform != 'cpu' and 'peak_bytes_in_use' in stats:
      return {'peak_bytes': stats['peak_bytes_in_use']}
    return {'peak_bytes': step_process.peak_bytes()}

  def profile(self, folder, steps):
    """Traces some steps; returns the table of their time by operation."""
    folder = pathlib.Path(folder)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # It would slow the host down.
    with jax.profiler.trace(folder, profiler_options=options):
      begin = time.perf_counter()
      for number in range(steps):
        with jax.profiler.StepTraceAnnotation('step', step_num=number):
          jax.block_until_ready(self.calls())
      seconds = time.perf_counter() - begin
    text = self.compiled.as_text()
    (folder / op_times.PROGRAM).write_text(text, encoding='utf-8')
    found = op_times.read(folder, text)
    return {'table': op_times.table(found, steps=steps, seconds=seconds)}

  def _train(self):
    """Returns (function that compiles, function that makes a step)."""
    training = self.training
    held = {
      'state': states.make_state(
        training.built.method.init,
        training.tx,
        key=training.key,
        abstract=training.state,
      )
    }
    batch = {
      name: jax.device_put(_random(name, x, self.net), x.sharding)
      for name, x in training.batch.items()
    }

    def step(compiled):
      held['state'], scalars = compiled(held['state'], batch)
      return scalars, held['state']

    def lower():
      return training.step.lower(training.state, training.batch).compile()

    return lower, step

  def _forward(self):
    """Returns (function that compiles, function that predicts a batch)."""
    net, n = self.net, self.training.schedule.batch_size
    inputs = _inputs(net, n, self.size, self.lowres_channels)
    place = device_mesh.replicated(self.training.mesh)
    params = jax.jit(self.training.built.method.init, out_shardings=place)(
      self.training.key
    )
    given = jax.device_put((params, inputs), place)
    predict = jax.jit(
      functools.partial(_predict, net),
      compiler_options=compiler_options.for_devices([self.device]),
    )

    def lower():
      return predict.lower(*given).compile()

    return lower, lambda compiled: compiled(*given)


def _predict(net, params, inputs):
  given = dict(inputs)
  return net.apply(
    {'params': params}, given.pop('x'), given.pop('noise'), **given, train=False
  )


def _inputs(net, n, size, lowres_channels):
  """Returns {name of an argument: array} of a network, for n images."""
  rng = np.random.default_rng(1)
  shape = (n, size, size)
  inputs = {'x': rng.standard_normal((*shape, net.out_channels))}
  # Times are far from 1000, where float32 leaves few digits to their sinusoids.
  inputs['noise'] = np.linspace(0.5, 4.0, n)
  if lowres_channels:
    inputs['lowres'] = rng.standard_normal((*shape, lowres_channels))
  if net.lowres_level:
    inputs['lowres_level'] = rng.random(n)
  inputs = {name: x.astype(np.float32) for name, x in inputs.items()}
  if net.num_classes is not None:
    inputs['label'] = np.arange(n, dtype=np.int32) % net.num_classes
  return inputs


def _filled(shapes):
  """Returns parameters of which none is zero, made from their names."""

  def fill(path, leaf):
    name = '/'.join(key.key for key in path)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    value = rng.standard_normal(leaf.shape, np.float32)
    if name.endswith('scale'):
      return 1 + 0.1 * value
    if name.endswith('bias'):
      return 0.1 * value
    return value / np.float32(math.sqrt(math.prod(leaf.shape[:-1])))

  return jax.tree_util.tree_map_with_path(fill, shapes)


def _flat(tree):
  """Returns {'mid_block_0/conv1/kernel': array}."""
  return {
    '/'.join(path): value
    for path, value in flax.traverse_util.flatten_dict(tree).items()
  }


def _random(name, leaf, net):
  """Returns a random part of a batch, with the shape and dtype of `leaf`."""
  most = net.num_classes or 1 if name == 'label' else 256
  rng = np.random.default_rng(0)
  return rng.integers(0, most, leaf.shape).astype(leaf.dtype)


if __name__ == '__main__':
  step_process.serve(start)
