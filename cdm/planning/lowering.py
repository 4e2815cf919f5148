"""Lowers the two programs that `cdm plan` compiles: training and sampling.

The training program is the step that `cdm train` runs; the sampling program
draws one batch from start to end. Nothing is allocated: state, batch and
parameters are shapes with a sharding over the mesh of a slice, and the slice
need not exist.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.config import (
  cascade_stages,
  guide_agreement,
  instantiate,
  loader,
  placement,
)
from cdm.config import stage as build
from cdm.distributed import device_mesh, partitioning
from cdm.models import flops
from cdm.ops import keys as ops_keys
from cdm.ops import pixels
from cdm.planning import evaluation_share
from cdm.sampling import cascade
from cdm.training import averaged_state, frozen_state, program


class Planned(NamedTuple):
  """A lowered program and the numbers that are known before it is compiled.

  Attributes:
    lowered: the program.
    mesh: the device mesh.
    batch_size: images per batch, on the whole mesh.
    parameters: number of scalars in the network's parameters.
    model_flops: FLOPs of one run of the program, counted from the network.
    turns: iterations of the loop that holds nearly all of the work; 1 if there
      is no such loop, None if there are loops inside it.
    arguments: {part of the arguments: bytes on one device}.
    num_steps: steps of the whole training run; None for sampling.
    network_evaluations: how often one run of the program evaluates the network
      on one image.
    evaluation_steps: training steps that take as long as the evaluations of the
      whole run; 0 for sampling.
    fsdp_is_chosen: whether the config leaves the size of `fsdp` open.
  """

  lowered: jax.stages.Lowered
  mesh: jax.sharding.Mesh
  batch_size: int
  parameters: int
  model_flops: int
  turns: int | None
  arguments: dict[str, int]
  num_steps: int | None
  network_evaluations: int
  evaluation_steps: float = 0.0
  fsdp_is_chosen: bool = False


def train_step(
  c: loader.ConfigDict, devices: Sequence[Any], *, num_slices: int = 1
) -> Planned:
  """Lowers the training step that `cdm train` runs for a config.

  The model FLOPs of a step are the FLOPs of three forward passes per image, and
  of those of a teacher; recomputation (remat) does not count.

  Args:
    c: ConfigDict of one stage.
    devices: JAX devices of the mesh, which may be described only.
    num_slices: see `device_mesh.make_mesh`.

  Raises:
    ValueError: the config cannot be used; names the section and key.
  """
  training = program.assemble(c, devices=devices, num_slices=num_slices)
  schedule, state = training.schedule, training.state
  forward_flops = _forward_flops(training.built)
  parts = {
    'parameters': state.params,
    'moments': state.opt_state,
    'ema': (state.ema_params, averaged_state.averages_of(state)),
    'batch': training.batch,
    'rest': (state.step, state.key),
  }
  if isinstance(state, frozen_state.FrozenState):
    parts['teacher'] = state.frozen
  return Planned(
    lowered=training.step.lower(state, training.batch),
    mesh=training.mesh,
    batch_size=schedule.batch_size,
    parameters=flops.count_parameters(state.params),
    model_flops=training.built.training_passes
    * schedule.batch_size
    * forward_flops,
    turns=schedule.accumulation,
    arguments={
      name: partitioning.device_bytes(tree) for name, tree in parts.items()
    },
    num_steps=schedule.num_steps,
    network_evaluations=1,
    evaluation_steps=evaluation_share.evaluation_steps(training),
    fsdp_is_chosen=placement.is_fsdp_chosen(c.mesh),
  )


def sample_step(
  c: loader.ConfigDict,
  devices: Sequence[Any],
  *,
  batch_size: int,
  num_slices: int = 1,
) -> Planned:
  """Lowers the program that draws one batch of a stage's images.

  The program runs all sampling steps, from noise to uint8 images.

  Args:
    c: ConfigDict of one stage.
    devices: JAX devices of the mesh, which may be described only.
    batch_size: images drawn at once; rounded up to divide over the mesh.
    num_slices: see `device_mesh.make_mesh`.

  Raises:
    ValueError: the config cannot be used; names the section and key.
  """
  cascade_stages.refuse_cascade(c, 'planned')
  build.refuse_classifier(c, 'planned with --step=sample')
  instantiate.require(c, 'mesh')
  built = build.stage(c)
  guide_agreement.refuse(c.get('sampler'), 'planned')
  mesh = placement.drawing_mesh(c.mesh, devices, num_slices=num_slices)
  batch_size = device_mesh.padded_batch_size(batch_size, mesh)
  params = placement.placed_params(built.method, c.mesh, mesh)
  params = built.prepared(params, mesh)
  stage = cascade.Stage.of(built, params, mesh, name=c.name)

  def draw(params, seed, indices, label, z_0):
    keys = ops_keys.image_keys(seed, indices)
    keys, label, z_0 = stage.split((keys, label, z_0))
    params = stage.boxed(params)
    if stage.lowres is None:
      label = label if stage.num_classes is not None else None
      x = stage.sample(params, keys=keys, label=label)
    else:
      x = cascade.super_resolve(stage, params, z_0, keys=keys, label=label)
    return pixels.to_uint8(x)

  replicated = device_mesh.replicated(mesh)
  z_0 = None
  if built.lowres is not None:
    shape = (batch_size, built.lowres.size, built.lowres.size, built.channels)
    place = device_mesh.batch_sharding(mesh)
    z_0 = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
  inputs = (  # seed, indices, label, z_0
    jax.ShapeDtypeStruct((), jnp.uint32, sharding=replicated),
    jax.ShapeDtypeStruct((batch_size,), jnp.uint32, sharding=replicated),
    jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=replicated),
    z_0,
  )
  return Planned(
    lowered=stage.jit(draw).lower(params, *inputs),
    mesh=mesh,
    batch_size=batch_size,
    parameters=flops.count_parameters(params),
    model_flops=built.evaluations * batch_size * _forward_flops(built),
    turns=built.turns,
    arguments={
      'ema': partitioning.device_bytes(params),
      'batch': partitioning.device_bytes(inputs),
    },
    num_steps=None,
    network_evaluations=built.evaluations,
  )


def _forward_flops(built: build.Stage) -> int:
  """Returns the FLOPs of one forward pass of the network on one image."""
  return built.trace()[1]
