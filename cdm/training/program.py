"""Assembles the training program of a stage: a step and shapes, but no arrays.

`cdm train` runs this program, and `cdm plan` compiles the same one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cdm.config import (
  built_stage,
  cascade_stages,
  datasets,
  facial_priors,
  guide_agreement,
  instantiate,
  key_errors,
  placement,
  stage,
)
from cdm.config.loader import ConfigDict
from cdm.distributed import device_mesh, partitioning
from cdm.training import (
  averaged_state,
  ema,
  ema_section,
  eval_section,
  fit_step,
  frozen_state,
  group_rates,
  optimizer,
  run_config,
  step,
)
from cdm.training import state as states

# Uses of config.seed, from which their seeds are folded.
DATA_SEED, MODEL_SEED, GRID_SEED, HELD_OUT_SEED, PAIRS_SEED = 0, 1, 2, 3, 4


class Program(NamedTuple):
  """The parts of a training run that need no data and no device.

  Attributes:
    built: the network and the method of the stage.
    schedule: the `train` section of the config.
    tx: the optimizer.
    mesh: the device mesh, of real devices or of devices that are only
      described.
    rules: (regex, spec) pairs, see `partitioning.state_sharding`.
    key: typed key of the run.
    state: TrainState of ShapeDtypeStructs that carry their sharding.
    batch: dict of ShapeDtypeStructs that carry their sharding.
    step: jitted (state, batch) -> (state, scalars); the state is donated.
    evaluation: the `eval` section of the config.
    snapshots: which snapshots of averages the run writes; None if none.
  """

  built: built_stage.Stage
  schedule: run_config.Run
  tx: optimizer.Optimizer
  mesh: jax.sharding.Mesh
  rules: tuple
  key: jax.Array
  state: states.TrainState
  batch: dict[str, jax.ShapeDtypeStruct]
  step: Any
  evaluation: eval_section.Evaluation
  snapshots: ema_section.Snapshots | None = None


def assemble(
  c: ConfigDict,
  *,
  devices: Sequence[jax.Device] | None = None,
  num_slices: int = 1,
) -> Program:
  """Builds the training program that a config describes.

  Args:
    c: config of one stage.
    devices: devices of the mesh; by default all devices of the run.
    num_slices: see `device_mesh.make_mesh`.

  Returns:
    Program.

  Raises:
    ValueError: if the config cannot be used; names the section and key.
  """
  cascade_stages.refuse_cascade(c, 'trained')
  instantiate.require(
    c, 'name', 'seed', 'train_data', 'eval_data', 'train', 'mesh'
  )
  built = stage.stage(c)
  guide_agreement.refuse(c.get('sampler'), 'trained')
  fits = built.method.accumulate is not None
  if not fits:
    instantiate.require(c, 'optimizer', 'ema')
  mesh = placement.mesh(c.mesh, devices, num_slices=num_slices)
  schedule = run_config.read_train_section(c)
  tx, average, averages, snapshots = optimizer.NOTHING, None, {}, None
  if fits:
    with key_errors.naming(None):
      fit_step.check(schedule)
  else:
    average = ema_section.read_ema_section(c.ema, batch_size=c.train.batch_size)
    averages = ema_section.read_tracks(c.ema, batch_size=c.train.batch_size)
    snapshots = ema_section.read_snapshots(c.ema)
    tx = run_config.make_optimizer(c.optimizer, schedule.num_steps)
    project = group_rates.but_frozen(built.method.project, tx.groups)
    tx = tx._replace(project=project)
  with key_errors.naming('train', otherwise='train.batch_size'):
    device_mesh.check_batch(
      schedule.batch_size, mesh, accumulation=schedule.accumulation
    )
  key = jax.random.key(seed_of(c, MODEL_SEED))
  method = built.method
  shapes = frozen_state.described(method.init, tx, method.init_frozen, key=key)
  group_rates.summary(tx.groups, shapes.params)  # refuses what fits no name
  rules = placement.rules(c.mesh, shapes, mesh)
  state = averaged_state.described(
    partitioning.with_shardings(shapes, mesh, rules), averages
  )
  return Program(
    built=built,
    schedule=schedule,
    tx=tx,
    mesh=mesh,
    rules=rules,
    key=key,
    state=state,
    batch=abstract_batch(c, schedule.batch_size, mesh),
    step=_make_step(built, tx, schedule, average, averages, mesh, state),
    evaluation=eval_section.read_eval_section(c, built),
    snapshots=snapshots,
  )


def _make_step(built, tx, schedule, average, averages, mesh, state):
  """Returns the jitted step of a stage."""
  shardings = states.shardings_of(state)
  if built.method.accumulate is not None:
    return fit_step.make_fit_step(
      built.method.accumulate, mesh=mesh, shardings=shardings
    )
  return step.make_step(
    built.layerwise_loss,
    tx,
    mesh=mesh,
    ema_decay=ema.Exponential(average.decay, average.warmup),
    averages=averages,
    accumulation=schedule.accumulation,
    shardings=shardings,
    draw=built.method.draw,
  )


def abstract_batch(
  c: ConfigDict, batch_size: int, mesh: jax.sharding.Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the global batch as ShapeDtypeStructs that carry their sharding.

  See `data.pipeline` for what a batch holds.
  """
  place = device_mesh.batch_sharding(mesh)
  return {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
    for name, x in _batch_shapes(c, batch_size).items()
  }


def _batch_shapes(c, batch_size):
  """Returns {name: ShapeDtypeStruct} of a batch, without shardings."""
  size, n = c.pipeline.image_size, batch_size
  shapes = {
    'image': jax.ShapeDtypeStruct(
      (n, size, size, built_stage.channels(c)), datasets.image_dtype(c)
    ),
    'label': jax.ShapeDtypeStruct((n,), np.int32),
  }
  if maps := facial_priors.of_network(c):
    shape = (n, size // 2, size // 2, maps)
    shapes['prior'] = jax.ShapeDtypeStruct(shape, np.uint8)
  given = datasets.input_shapes(c.train_data, size)
  for name, (shape, dtype) in given.items():
    shapes[name] = jax.ShapeDtypeStruct((n, *shape), dtype)
  return shapes


def seed_of(c: ConfigDict, use: int) -> int:
  """Derives a seed for one use, such as DATA_SEED, from `c.seed`."""
  return int(np.random.SeedSequence([c.seed, use]).generate_state(1)[0])


def trace_loss_and_sampler(
  c: ConfigDict, built: built_stage.Stage, params: Any
) -> None:
  """Traces the loss and the sampler without running them.

  Errors in their options are then found at once. Otherwise they would appear
  much later, when the first step is compiled or the first samples are drawn.

  Args:
    c: config of the stage.
    built: the stage.
    params: tree of ShapeDtypeStructs.
  """
  n = 2
  inputs = {}
  if built.net.num_classes is not None:
    inputs['label'] = jax.ShapeDtypeStruct((n,), np.int32)
  if built.lowres is not None:
    low = (n, built.lowres.size, built.lowres.size, built.channels)
    inputs['lowres'] = jax.ShapeDtypeStruct(low, np.float32)
  if built.sample_in_training is not None:
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), n))
    jax.eval_shape(built.sample_in_training, params, keys=keys, **inputs)
  batch = _batch_shapes(c, n)
  if built.method.accumulate is not None:
    jax.eval_shape(built.method.accumulate, params, batch)
  loss = built.method.loss
  if loss is not None:
    key = jax.eval_shape(lambda: jax.random.key(0))
    init = built.method.init_frozen
    frozen = {} if init is None else {'frozen': jax.eval_shape(init, key)}
    jax.eval_shape(
      lambda p, b, k, f: loss(p, b, key=k, train=True, **f),
      params,
      batch,
      key,
      frozen,
    )
