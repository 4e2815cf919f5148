"""Exports a trained stage as a program of StableHLO, which needs no cdm.

  denoiser   (x_t, logsnr, conditions) -> x_0, eps
  sampler    (seed, indices, label) -> images
  upscaler   (lowres, seed, indices, label) -> images

`jax.export` writes the program, lowered for several platforms, with the
parameters in it as constants. Image n of a seed is the image that `cdm sample`
and `cdm upscale` draw.
"""

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from cdm.config import bound_diffusion, built_stage, redrawn_sampler
from cdm.config import stage as stages
from cdm.data.files import atomic_files
from cdm.data.low_res_inputs import LEVELS
from cdm.methods import autoguided, guided_denoiser, lowres_conditioning
from cdm.methods.canvas_drawing import AnyFactor, Views
from cdm.ops import pixels
from cdm.ops.keys import image_keys, stage_keys
from cdm.sampling import cascade, exported_stage, restore
from cdm.sampling.restored_parameters import Checkpoint

SUFFIX = '.stablehlo'
KINDS = ('denoiser', 'sampler', 'upscaler')
PLATFORMS = ('cpu', 'cuda', 'tpu')
# The serialized program is a flatbuffer, whose offsets have 31 bits.
MOST_BYTES = 2**31 - 2**26
BATCH = 'n'


class Program(NamedTuple):
  """A function of arrays by name, with its parameters.

  Attributes:
    call: `(params, **inputs) -> arrays`.
    params: tree of float32 arrays on the host.
    inputs: {name: (shape, dtype)}; BATCH in the place of a size is the number
      of images.
  """

  call: Callable[..., Any]
  params: Any
  inputs: dict[str, tuple[tuple[int | str, ...], Any]]


class Asked(NamedTuple):
  """What a program is to be.

  Attributes:
    kind: one of `KINDS`; None is the upscaler of a super-resolution stage, and
      the sampler of another.
    redraw: the sampler and its number of steps, in the place of the stage's.
    level: augmentation level of the low-res input.
    tile: h = w of the low-res input; None is that of training.
  """

  kind: str | None = None
  redraw: redrawn_sampler.Redraw = redrawn_sampler.AS_TRAINED
  level: float = 0.0
  tile: int | None = None


def program(
  workdir: pathlib.Path, at: int | str | None, asked: Asked
) -> tuple[Program, str]:
  """Builds the program of a trained stage.

  Args:
    workdir: work directory of a run, or a packed stage.
    at: which checkpoint, see `reader.resolve`.
    asked: what it is to be.

  Returns:
    (Program, its kind).

  Raises:
    FileNotFoundError: there is no such checkpoint.
    ValueError: the stage has no such program.
  """
  restored, saved, _ = restore.restored_stage(
    Checkpoint(workdir, at),
    name=str(workdir),
    level=asked.level,
    mesh=dict(exported_stage.MESH),
    redraw=asked.redraw,
  )
  restored = restored._replace(
    mesh=None, boxes=None, params=jax.tree.map(np.asarray, restored.params)
  )
  is_base = restored.lowres is None
  kind = asked.kind or ('sampler' if is_base else 'upscaler')
  if kind != 'denoiser' and (kind == 'sampler') != is_base:
    what = 'a base model' if is_base else 'a super-resolution stage'
    other = KINDS[1] if is_base else KINDS[2]
    raise ValueError(
      f'{workdir} holds {saved.name!r}, {what}, which has no {kind}; '
      f'export its {other} or its denoiser.'
    )
  if not is_base:
    cascade.check_level(restored)
  built = stages.stage(saved)
  if kind == 'denoiser':
    return _denoiser(restored, built), kind
  if kind == 'sampler':
    return _sampler(restored), kind
  return upscaler(restored, asked.tile), kind


def _denoiser(stage: cascade.Stage, built: built_stage.Stage) -> Program:
  """Returns the network with its preconditioning, unguided and unclipped."""
  bind, kind = built.method.guiding, built.config.method.kind
  if bind is None or bound_diffusion.is_detail(built.config):
    raise ValueError(
      f'Stage {stage.name!r} has method.kind={kind!r} and a network that is no '
      'denoiser of x_t and the noise level alone; export its upscaler.'
    )
  size, channels = stage.image_size, stage.channels
  image = (BATCH, size, size, channels)
  inputs: dict[str, Any] = {
    'x_t': (image, np.float32),
    'logsnr': ((BATCH,), np.float32),
    **_label(stage),
  }
  if stage.lowres is not None:
    low = (BATCH, stage.lowres.size, stage.lowres.size, channels)
    inputs['lowres'] = low, np.float32
  if built.net.lowres_level:
    inputs['level'] = (BATCH,), np.float32

  def call(params, x_t, logsnr, label=None, lowres=None, level=None):
    upsampled = None
    if lowres is not None:
      assert stage.lowres is not None
      upsampled = lowres_conditioning.upsample(lowres, size, stage.lowres)
    if level is None:
      level = jnp.zeros_like(logsnr)
    known = guided_denoiser.Conditions(label, upsampled, level)
    found = bind(params, known)(x_t, logsnr)
    return {'x_0': found.x_0, 'eps': found.eps}

  params = stage.params
  if isinstance(params, autoguided.Parameters):
    params = params.strong
  return Program(call, params, inputs)


def _sampler(stage: cascade.Stage) -> Program:
  cascade.check_starts(stage)
  settings = cascade.settings_of(stage)

  def call(params, seed, indices, label=None):
    keys = stage_keys(image_keys(seed, indices), 0)
    x = cascade.draw_with(stage, params, settings, None, keys, label)
    return _finished(stage, x)

  return Program(call, stage.params, {**_numbers(), **_label(stage)})


def upscaler(stage: cascade.Stage, tile: int | None = None) -> Program:
  """Returns the program that enlarges low-res images of one size.

  A network of degraded low-res images takes any size, and is told what degraded
  them: `damage`, the numbers of `data.low_res_inputs.LEVELS` but the first.

  Args:
    stage: a super-resolution stage on one device.
    tile: see `Asked`.

  Raises:
    ValueError: the network cannot take low-res images of that size.
  """
  assert stage.lowres is not None
  trained = stage.lowres.size
  canvas = stage.canvas
  if canvas and canvas.any_factor and not canvas.draws_mean:
    return _restorer(stage, canvas.any_factor, tile or trained)
  if tile not in (None, trained):
    raise ValueError(
      f'--tile={tile}: {stage.name!r} is a network for low-res images of '
      f'{trained} pixels; leave it out.'
    )
  settings = cascade.settings_of(stage)
  dtype = np.float32 if stage.is_array else np.uint8

  def call(params, lowres, seed, indices, label=None):
    keys = stage_keys(image_keys(seed, indices), 0)
    x = cascade.super_resolve(
      stage,
      params,
      pixels.of_batch(lowres),
      keys=keys,
      label=label,
      settings=settings,
    )
    return _finished(stage, x)

  low = (BATCH, trained, trained, stage.channels)
  inputs = {'lowres': (low, dtype), **_numbers(), **_label(stage)}
  return Program(call, stage.params, inputs)


def _restorer(
  stage: cascade.Stage, any_factor: AnyFactor, tile: int
) -> Program:
  """Returns an upscaler that is told what degraded its low-res images."""
  assert stage.canvas is not None and stage.lowres is not None
  evaluate, lowres_options = stage.canvas.evaluate, stage.lowres
  factor = stage.image_size // lowres_options.size
  size = tile * factor
  if size % any_factor.unit:
    raise ValueError(
      f'--tile={tile}: results have {factor} times as many pixels, and the '
      f'network takes whole squares of {any_factor.unit}; give a multiple of '
      f'{any_factor.unit // math.gcd(any_factor.unit, factor)}.'
    )

  def call(params, lowres, damage):
    z = pixels.to_float(lowres)
    upsampled = lowres_conditioning.upsample(z, size, lowres_options)
    enlarged = jnp.full((z.shape[0], 1), math.log2(factor), jnp.float32)
    told = jnp.concatenate([enlarged, damage], axis=1)
    views = Views(None, upsampled, jnp.zeros(z.shape[0]), None, told)
    return pixels.to_uint8(evaluate(params, views, None, None, None)['x_0'])

  inputs: dict[str, Any] = {
    'lowres': ((BATCH, tile, tile, stage.channels), np.uint8),
    'damage': ((BATCH, len(LEVELS) - 1), np.float32),
  }
  return Program(call, stage.params, inputs)


def _finished(stage: cascade.Stage, x: jax.Array) -> jax.Array:
  """Returns drawn images as uint8, and drawn arrays as they are kept."""
  return jnp.clip(x, -1.0, 1.0) if stage.is_array else pixels.to_uint8(x)


def _numbers() -> dict[str, Any]:
  return {'seed': ((), np.uint32), 'indices': ((BATCH,), np.uint32)}


def _label(stage: cascade.Stage) -> dict[str, Any]:
  if stage.num_classes is None:
    return {}
  return {'label': ((BATCH,), np.int32)}


def lowered(
  given: Program,
  *,
  dtype: str = 'float32',
  batch_size: int | None = None,
  platforms: Sequence[str] = PLATFORMS,
) -> jax_export.Exported:
  """Lowers a program for other processes.

  Args:
    given: the program.
    dtype: 'float32' or 'float16', in which the parameters are kept. They are
      computed with as float32 ones.
    batch_size: the number of images; None leaves it open.
    platforms: some of `PLATFORMS`.

  Raises:
    ValueError: it is too large for one file, or its number of images cannot be
      left open.
  """
  params = jax.tree.map(lambda x: x.astype(dtype), given.params)
  count = sum(x.nbytes for x in jax.tree.leaves(params))
  if count > MOST_BYTES:
    raise ValueError(
      f'The parameters are {count / 1e9:.2f} GB, and a program holds at most '
      f'{MOST_BYTES / 1e9:.2f}; give --dtype=float16, or export a packed stage.'
    )

  def call(**inputs):
    whole = jax.tree.map(
      lambda x, own: jnp.asarray(x).astype(own.dtype), params, given.params
    )
    return given.call(whole, **inputs)

  try:
    return jax_export.export(jax.jit(call), platforms=tuple(platforms))(
      **_specs(given.inputs, batch_size)
    )
  except (jax.errors.InconclusiveDimensionOperation, TypeError) as error:
    if batch_size is not None:
      raise
    # JAX tells a size that is asked for as a number by a TypeError.
    raise ValueError(
      'This program depends on its number of images, which cannot be left '
      'open; give --batch_size=N.'
    ) from error


def _specs(
  inputs: Mapping[str, Any], batch_size: int | None
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of the inputs, with a symbol for an open batch."""
  count: Any = batch_size
  if batch_size is None:
    (count,) = jax_export.symbolic_shape(BATCH)
  return {
    name: jax.ShapeDtypeStruct(
      tuple(count if size == BATCH else size for size in shape), dtype
    )
    for name, (shape, dtype) in inputs.items()
  }


def write(path: str | os.PathLike[str], exported: jax_export.Exported) -> int:
  """Writes a program into one file, which appears whole or not at all.

  Returns:
    Its size in bytes.
  """
  data = exported.serialize()
  with atomic_files.write_atomically(pathlib.Path(path)) as partial:
    partial.write_bytes(data)
  return len(data)


def described(given: Program, batch_size: int | None) -> str:
  """Returns the inputs of a program in words: seed: uint32 [], ...

  Args:
    given: the program.
    batch_size: see `lowered`.
  """
  count = BATCH if batch_size is None else batch_size
  words = []
  for name, (shape, dtype) in given.inputs.items():
    sizes = [str(count if size == BATCH else size) for size in shape]
    words.append(f'{name}: {np.dtype(dtype)} [{", ".join(sizes)}]')
  return ', '.join(words)
