"""Writes a work directory from published weights, as if they were trained here.

The directory holds one checkpoint, of step 0, and the config. Commands that
draw images, and `config.train.init_from`, use it like any other.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import flax

from cdm.checkpointing import folder_rename, reader, writer
from cdm.config import built_stage, loader
from cdm.methods import pulse
from cdm.models.pretrained import stylegan
from cdm.training import averaged_state, frozen_state, program
from cdm.training import state as states

# Overrides for a generator whose files are a synthesis network and a Gaussian:
# it is searched only.
SEARCHED_ONLY = (
  ('model.mapping_layers', '0'),
  ('model.discriminator', 'None'),
  ('method.fit_samples', 'None'),
  ('optimizer.group_rates', '()'),
)


def read_stylegan(
  built: built_stage.Stage,
  *,
  synthesis: str | os.PathLike,
  mapping: str | os.PathLike | None = None,
  gaussian_fit: str | os.PathLike | None = None,
) -> dict:
  """Reads the published files of a stage whose method.kind is 'pulse'.

  Args:
    built: the stage.
    synthesis, mapping: see `stylegan.read_generator`.
    gaussian_fit: path of `gaussian_fit.pt`, for a config with `SEARCHED_ONLY`;
      None for one with a mapping network.

  Returns:
    The parameters that the files hold, a part of the stage's.

  Raises:
    ValueError: a file is of another network.
    DamagedWeights: a file is no PyTorch state dict.
    OSError: a file cannot be read.
  """
  generator = stylegan.read_generator(
    built.net, synthesis=synthesis, mapping=mapping
  )
  params = {pulse.GENERATOR: generator}
  if gaussian_fit is not None:
    params[pulse.FIT] = stylegan.read_fit(gaussian_fit, built.net.latent_size)
  return params


def write_workdir(
  c: loader.ConfigDict,
  workdir: pathlib.Path,
  params: dict,
  read_frozen: Callable[[Any], Any] | None = None,
) -> list[str]:
  """Writes the only checkpoint of a new work directory.

  Args:
    c: config of the stage.
    workdir: the directory; made if it is missing.
    params: parameters of the stage, as nested dicts. What is left out is drawn
      at random, as at the start of a training run.
    read_frozen: see `frozen_state.make`.

  Returns:
    What to tell about it, a list of lines.

  Raises:
    ValueError: the directory holds checkpoints already or is on a file system
      that cannot rename folders, or a parameter is not one of the stage's.
  """
  check_new(workdir)
  assembled = program.assemble(c)
  given, own = _flat(params), _flat(assembled.state.params)
  for name, value in given.items():
    if name not in own or own[name].shape != value.shape:
      raise ValueError(
        f'The weights hold {name} of shape {list(value.shape)}, which '
        f'{c.name!r} does not have; give the config of that network.'
      )

  def merge(fresh, arrays):
    merged = _flat(fresh) | _flat(arrays)
    return flax.traverse_util.unflatten_dict(merged, sep='/')

  state = averaged_state.make(
    lambda own: frozen_state.make(
      assembled.built.method.init,
      assembled.tx,
      lambda: states.Weights(params, merge),
      read_frozen,
      key=assembled.key,
      abstract=own,
    ),
    assembled.state,
  )
  with writer.Checkpointer(workdir, config=loader.to_json(c)) as checkpointer:
    checkpointer.save(0, state, data_state=None)
    checkpointer.wait()
    checkpointer.write_config()
  lines = [f'{workdir}: {len(given)} of {len(own)} arrays are from the files']
  blocks = sorted({name.split('/')[0] for name in own.keys() - given.keys()})
  if blocks:
    lines.append(f'drawn at random, for training: {", ".join(blocks)}')
  return lines


def check_new(workdir: pathlib.Path) -> None:
  """Raises ValueError unless a checkpoint can be written there, as its first.

  Args:
    workdir: the directory; it need not be there.
  """
  if reader.complete_steps(workdir):
    raise ValueError(
      f'{workdir} holds checkpoints already; give a new work directory.'
    )
  folder_rename.check(workdir)


def _flat(tree: dict) -> dict[str, Any]:
  """Returns {'generator/mapping/...': array} of nested dicts."""
  return flax.traverse_util.flatten_dict(tree, sep='/')
