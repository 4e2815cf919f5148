"""The programs that are foretold: the very training step, a sampling run.

Nothing is allocated: state, batch and parameters are shapes with a place on
the mesh of a slice that need not exist.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cdm.config import cascade_stages, instantiate, placement, sampler_section
from cdm.config import stage as build
from cdm.distributed import device_mesh
from cdm.models import flops as describe
from cdm.ops import keys as ops_keys
from cdm.ops import pixels
from cdm.sampling import cascade
from cdm.training import program


class Planned(NamedTuple):
  """A program, and what is known of it before it is compiled.

  Attributes:
    lowered: jax.stages.Lowered.
    mesh: the mesh.
    batch_size: images of the whole mesh.
    parameters: how many.
    model_flops: of one run of the program, counted from the network.
    turns: of the loop that holds nearly all of the work; 1 without one.
    arguments: {part of the arguments: bytes on one device}.
    num_steps: of the training run; None of sampling.
    network_evaluations: of one image in one run of the program.
  """

  lowered: object
  mesh: jax.sharding.Mesh
  batch_size: int
  parameters: int
  model_flops: int
  turns: int
  arguments: dict
  num_steps: int | None
  network_evaluations: int


def train_step(c, devices):
  """-> Planned: what `cdm train` of a config runs on these devices.

  A step is taken for three forward passes; what is recomputed counts nothing.

  Raises:
    ValueError: the config cannot be used; names the section and key.
  """
  made = program.assemble(c, devices=devices)
  schedule, state = made.schedule, made.state
  flops = _forward_flops(made.built)
  parts = {
    'parameters': state.params,
    'moments': state.opt_state,
    'ema': state.ema_params,
    'batch': made.batch,
    'rest': (state.step, state.key),
  }
  return Planned(
    lowered=made.step.lower(state, made.batch),
    mesh=made.mesh,
    batch_size=schedule.batch_size,
    parameters=describe.count(state.params),
    model_flops=3 * schedule.batch_size * flops,
    turns=schedule.accumulation,
    arguments={name: device_bytes(tree) for name, tree in parts.items()},
    num_steps=schedule.num_steps,
    network_evaluations=1,
  )


def sample_step(c, devices, *, batch_size):
  """-> Planned: what draws a batch of a stage's images, start to end.

  Args:
    c: ConfigDict of one stage.
    devices: of the mesh.
    batch_size: images drawn at once; rounded up to divide over the mesh.

  Raises:
    ValueError: the config cannot be used; names the section and key.
  """
  cascade_stages.refuse_cascade(c, 'planned')
  build.refuse_classifier(c, 'planned with --step=sample')
  instantiate.require(c, 'mesh')
  built = build.stage(c)
  mesh = placement.mesh(c.mesh, devices)
  batch_size = device_mesh.padded(batch_size, mesh)
  params = placement.placed_params(built.method, c.mesh, mesh)
  stage = cascade.Stage.of(built, params, mesh, name=c.name)

  def draw(params, seed, indices, label, z_0):
    keys = ops_keys.image_keys(seed, indices)
    keys, label, z_0 = stage.split((keys, label, z_0))
    params = stage.whole(params)
    if stage.lowres is None:
      label = label if stage.num_classes is not None else None
      x = stage.sample(params, keys=keys, label=label)
    else:
      x = cascade.super_resolve(stage, params, z_0, keys=keys, label=label)
    return pixels.to_uint8(x)

  replicated = device_mesh.replicated(mesh)
  z_0 = None
  if built.lowres is not None:
    shape = (batch_size, built.lowres.size, built.lowres.size, 3)
    place = device_mesh.batch_sharding(mesh)
    z_0 = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
  given = (
    jax.ShapeDtypeStruct((), jnp.uint32, sharding=replicated),
    jax.ShapeDtypeStruct((batch_size,), jnp.uint32, sharding=replicated),
    jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=replicated),
    z_0,
  )
  steps = len(sampler_section.grid(built.schedule, c.sampler.grid)) - 1
  evaluations = steps * (2 if c.sampler.guidance_weight else 1)
  return Planned(
    lowered=stage.jit(draw).lower(params, *given),
    mesh=mesh,
    batch_size=batch_size,
    parameters=describe.count(params),
    model_flops=evaluations * batch_size * _forward_flops(built),
    turns=steps,
    arguments={'ema': device_bytes(params), 'batch': device_bytes(given)},
    num_steps=None,
    network_evaluations=evaluations,
  )


def device_bytes(tree):
  """-> bytes that one device holds of a tree of shapes with a place."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _forward_flops(built):
  size, has_lowres = built.input_size, built.lowres is not None
  return describe.trace(built.net, size, has_lowres)[1]
