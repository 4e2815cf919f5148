"""Opens what super-resolves: a trained stage, or a method without training.

Every command that takes the work directory of a super-resolution stage takes
the name of such a method in its place:

  METHOD:CONFIG.py    nearest, bicubic or nearest_neighbour, on the data and
                      with the low-res images of a config, which need not have
                      been trained
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from cdm.checkpointing import average_names, checkpoint_name
from cdm.config import (
  built_stage,
  cascade_stages,
  datasets,
  diffusion_stage,
  instantiate,
  loader,
  placement,
  redrawn_sampler,
  stage,
)
from cdm.data import data_origin, transforms
from cdm.distributed import device_mesh
from cdm.methods import interpolation
from cdm.ops import pixels
from cdm.sampling import (
  drawing_batch,
  kept_images,
  nearest_originals,
  restore,
  stage_record,
)
from cdm.sampling.drawing_stage import jit_batches
from cdm.sampling.upscaler import Upscaler

NEAREST_NEIGHBOUR = 'nearest_neighbour'
METHODS = (*interpolation.FILTERS, NEAREST_NEIGHBOUR)
_FORM = re.compile(r'(?P<method>\w+):(?P<path>.+\.py)')


def parse(workdir: str | os.PathLike) -> tuple[str, str] | None:
  """Returns (method, path of a config); None for a work directory.

  Raises:
    ValueError: there is no such method.
  """
  found = _FORM.fullmatch(str(workdir))
  if found is None:
    return None
  method, path = found.groups()
  if method not in METHODS:
    raise ValueError(
      f'{workdir}: {method!r} is no method without training; known are '
      f'{", ".join(METHODS)}.'
    )
  return method, path


@dataclasses.dataclass(frozen=True)
class UntrainedRecord:
  """What the images of a method without training depend on, for manifests.

  Attributes:
    method: its name.
    experiment: name of the config.
    searched: the training images that were searched; {} if none were.
    prepared, data_sets: see `stage_record.StageRecord`; None unless they were.
  """

  method: str
  experiment: str
  searched: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prepared: stage_record.Preparation | None = None
  data_sets: Mapping[str, data_origin.Origin] | None = None

  weights: ClassVar[str] = 'none'

  def manifest(
    self,
    title: str = 'experiment',
    *,
    after_checkpoint: Mapping[str, object] | None = None,
    after_level: Mapping[str, object] | None = None,
  ) -> stage_record.StageManifest:
    """Returns the settings as a dict of JSON values, as `StageRecord` does."""
    settings = {
      title: self.experiment,
      'method': self.method,
      **(after_checkpoint or {}),
      'level': 0.0,
      **(after_level or {}),
      'sampler': {},
    }
    if self.searched:
      settings['searched'] = dict(self.searched)
    if self.prepared is not None:
      settings['prepared'] = self.prepared
    if self.data_sets is not None:
      settings['data_sets'] = self.data_sets
    return cast(stage_record.StageManifest, settings)


def lowres_size(
  workdir: pathlib.Path,
  overrides: Sequence[tuple[str, str]] = (),
  at: int | str | None = None,
) -> int:
  """Returns the side of the input, from the config; see `restore.lowres_size`.

  Args:
    workdir: a work directory, or METHOD:CONFIG.py.
    overrides: ((dotted key, text), ...), applied to the config.
    at: which checkpoint of a work directory.
  """
  named = parse(workdir)
  if named is None:
    return restore.lowres_size(workdir, overrides, at)
  method, path = named
  return _lowres_of(method, loader.load(path, overrides)).size


def canvas_factor(
  workdir: pathlib.Path,
  overrides: Sequence[tuple[str, str]] = (),
  at: int | str | None = None,
) -> int | None:
  """Returns the magnification of what draws pictures of any size.

  None if it draws tiles, which are blended.

  Args:
    workdir, overrides, at: see `lowres_size`.
  """
  if parse(workdir) is not None:
    return None
  return restore.canvas_factor(workdir, overrides, at)


def opened(
  workdir: pathlib.Path,
  *,
  level: float,
  batch_size: int | None = None,
  limits: drawing_batch.Limits = drawing_batch.WHOLE_BATCHES,
  overrides: Sequence[tuple[str, str]] = (),
  at: int | str | None = None,
  kept: kept_images.Kept | None = None,
  redraws: redrawn_sampler.Pairs = (),
) -> tuple[Upscaler, loader.ConfigDict]:
  """Opens a super-resolution stage or a method without training.

  Args:
    workdir: a work directory, or METHOD:CONFIG.py.
    level, batch_size, limits, overrides, at, kept: see
      `restore.restored_upscaler`. A method without training has neither levels
      nor checkpoints.
    redraws: another sampler, or number of steps, than the config says; see
      `redrawn_sampler.parse`. Only a diffusion model has a sampler.

  Returns:
    (Upscaler, config of its stage).

  Raises:
    FileNotFoundError: a work directory has no checkpoint.
    ValueError: it cannot be used; names what is wrong.
  """
  named, redraw = parse(workdir), redrawn_sampler.of_single(redraws)
  if named is None:
    return restore.restored_upscaler(
      workdir,
      level=level,
      batch_size=batch_size,
      limits=limits,
      overrides=overrides,
      at=at,
      kept=kept,
      redraw=redraw,
    )
  if redraw:
    raise ValueError(
      f'{redraw.flags}: {named[0]} has no sampler and no noise levels; leave '
      'it out.'
    )
  step, average = checkpoint_name.split(at)
  other = None if average == average_names.MAIN else average
  given = (('at', step), ('ema', other), ('level', level or None))
  for option, value in given:
    if value is not None:
      raise ValueError(
        f'--{option}={value}: {named[0]} has no checkpoint and no levels; '
        'leave it out.'
      )
  method, path = named
  c = loader.load(path, overrides)
  upscaler = untrained(
    method,
    c,
    batch_size=batch_size,
    limits=limits,
  )
  return upscaler, c


def untrained(
  method: str,
  c: loader.ConfigDict,
  *,
  batch_size: int | None = None,
  limits: drawing_batch.Limits = drawing_batch.WHOLE_BATCHES,
) -> Upscaler:
  """Opens a method without training.

  Args:
    method: one of `METHODS`.
    c: config whose data and low-res images are used.
    batch_size, limits: see `opened`.

  Raises:
    ValueError: it cannot be used with the config.
  """
  lowres = _lowres_of(method, c)
  mesh = placement.drawing_mesh(c.mesh)
  if batch_size is None:
    batch_size = _batch_size(c, mesh, limits)
  return _upscaler(method, c, lowres, mesh, batch_size)


def _lowres_of(method, c):
  """Returns the Lowres of a config, checked."""
  cascade_stages.refuse_cascade(c, f'used for {method}')
  stage.refuse_classifier(c, f'used for {method}')
  built_stage.refuse_others(c, f'used for {method}')
  instantiate.require(
    c, 'name', 'pipeline', 'train_data', 'eval_data', 'mesh', 'lowres'
  )
  lowres = diffusion_stage.lowres_of(c, built_stage.image_size(c))
  if lowres is None:
    raise ValueError(
      f'{c.name!r} is a base model, which has no low-res images for {method}; '
      'give the config of a super-resolution stage.'
    )
  # Noise and blur are for training.
  return dataclasses.replace(lowres, augment='none')


def _batch_size(c, mesh, limits):
  """Returns how many images are super-resolved at once, over all devices."""
  shards = device_mesh.num_batch_shards(mesh)
  most = limits.on_hosts(c.pipeline.image_size, mesh)
  per_device = limits.per_device
  if per_device is None:
    accelerated = drawing_batch.device_bytes(mesh) is not None
    per_device = limits.most_per_device
    if not accelerated:
      per_device = -(-restore.UPSCALED_ON_CPUS // shards)
    per_device = min(per_device, max(1, most // shards))
  return shards * per_device


def _upscaler(method, c, lowres, mesh, batch_size):
  """Returns the `Upscaler` of a method without training."""
  common = {
    'image_size': c.pipeline.image_size,
    'lowres': lowres,
    'mesh': mesh,
    'batch_size': batch_size,
  }
  if method == NEAREST_NEIGHBOUR:
    search = nearest_originals.NearestOriginals(c, lowres, mesh)
    options = datasets.pipeline_options(c)
    record = UntrainedRecord(
      method,
      c.name,
      searched=search.searched,
      prepared={
        'crop': options.crop,
        'filter': transforms.filter_name(options.filter),
        'min_side': options.least_side,
      },
      data_sets=data_origin.of_sections(c),
    )
    return Upscaler(
      search, record=record, neighbours=search.neighbours, **common
    )
  sample = interpolation.interpolation(
    method, factor=c.pipeline.image_size // lowres.size
  ).sample
  assert sample is not None

  def interpolate(images):
    x = pixels.to_float(device_mesh.split_batch(images, mesh))
    return pixels.to_uint8(sample({}, lowres=x))

  program = jit_batches(interpolate, mesh)
  return Upscaler(
    lambda images, keys, label: program(images),
    record=UntrainedRecord(method, c.name),
    margin=interpolation.MARGINS[method],
    **common,
  )
