"""Writes a trained stage as a folder of diffusers: a `UNet2DModel`.

config.json                            the architecture
diffusion_pytorch_model.safetensors    the weights
scheduler_config.json                  the noise schedule and the sampler
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import numpy as safetensors_numpy

from cdm.config import exported_scheduler
from cdm.config.stage import stage as build
from cdm.data.files import atomic_files
from cdm.models.pretrained import diffusers_export
from cdm.models.unet import UNet
from cdm.sampling import exported_stage

CONFIG = 'config.json'
WEIGHTS = 'diffusion_pytorch_model.safetensors'
SCHEDULER = 'scheduler_config.json'


class Exported(NamedTuple):
  """What a folder holds.

  Attributes:
    config, scheduler: the objects of its two JSON files.
    state: {name: array} of its weights, in PyTorch's layout.
    notes: what it does not carry, sentences.
  """

  config: dict[str, Any]
  scheduler: dict[str, Any]
  state: dict[str, np.ndarray]
  notes: Sequence[str]


def convert(read: exported_stage.Read) -> Exported:
  """Returns a trained stage in the library's form.

  Args:
    read: the stage.

  Raises:
    ValueError: it cannot be expressed; the key of the config is named.
  """
  c, name = read.config, read.config.name
  net = build(c).net
  if not isinstance(net, UNet) or c.method.kind != 'diffusion':
    raise ValueError(
      f'{name!r} has method.kind={c.method.kind!r} and a '
      f'{type(net).__name__}; a folder of diffusers holds the U-Net of a '
      'diffusion model. Export a packed stage or a program.'
    )
  size = c.pipeline.image_size
  try:
    scheduler = exported_scheduler.of_config(c)
    config = diffusers_export.described(net, read.params, image_size=size)
  except ValueError as error:
    raise ValueError(
      f'{name!r} cannot be expressed in diffusers: {error} Export a packed '
      'stage or a program.'
    ) from error
  notes = [*scheduler.notes]
  if c.lowres is not None:
    notes.append(
      'Its input is the noisy image and then the low-res image, enlarged by '
      f'{c.lowres.upsample!r}, as channels.'
    )
  if net.null_class:
    notes.append(f'Label {net.num_classes} is the null class.')
  params = jax.tree.map(np.asarray, read.params)
  state = diffusers_export.state(params, net, image_size=size)
  return Exported(config, scheduler.config, state, notes)


def write(folder: pathlib.Path, made: Exported, dtype: str) -> None:
  """Writes the folder; its config.json is there when the rest is whole.

  Args:
    folder: the folder, made if it is missing.
    made: what it is to hold.
    dtype: 'float32' or 'float16', what the weights are rounded to.
  """
  folder.mkdir(parents=True, exist_ok=True)
  arrays = {name: x.astype(dtype) for name, x in made.state.items()}
  with atomic_files.write_atomically(folder / WEIGHTS) as partial:
    mode = partial.stat().st_mode
    safetensors_numpy.save_file(arrays, partial, {'format': 'pt'})
    partial.chmod(mode)  # The library makes a file for its owner alone.
  for name, value in ((SCHEDULER, made.scheduler), (CONFIG, made.config)):
    text = json.dumps(value, indent=2) + '\n'
    atomic_files.write_text_atomically(folder / name, text)
