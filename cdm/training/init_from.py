"""Starts a run from the weights of another run's checkpoint: fine-tuning.

`config.train.init_from` names the checkpoint: WORKDIR, WORKDIR@STEP or
WORKDIR@best, or the file that `cdm export` wrote of one. Its EMA parameters
(or, with init_params='raw', those that the optimizer changed) become both the
parameters and their average of the new run; `weight_matching` says which array
becomes which. The optimizer, the step and the data begin anew.

Only the first start of a run reads the checkpoint. The run then writes the
folder, the step and a hash of it into its config, and keeps that when it is
resumed, even if the other run is gone.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from cdm.checkpointing import packed_stage, reader
from cdm.config import bound_diffusion, loader
from cdm.distributed import (
  bucket_folders,
  device_mesh,
  partitioning,
)
from cdm.training import (
  init_record,
  run_config,
  weight_matching,
  weight_source,
)
from cdm.training import state as states

if TYPE_CHECKING:
  from cdm.config.loader import ConfigDict
  from cdm.data.source import Source
  from cdm.training.program import Program

KEY = init_record.KEY
_MOST_NAMES = 6  # in an error, which is one sentence


class Start(NamedTuple):
  """Where the weights of a run come from.

  Attributes:
    config: the config of the run, with what it has to record of its start.
    weights: what a new run starts from; None if it starts from random weights,
      or is resumed.
    lines: what to tell about it.
  """

  config: ConfigDict
  weights: SourceWeights | None = None
  lines: Sequence[str] = ()


def find_start(
  c: ConfigDict, workdir: pathlib.Path, assembled: Program, source: Source
) -> Start:
  """Finds and checks what a run starts from; no array is read yet.

  Every process must call it.

  Args:
    c: config of the run.
    workdir: work directory of the run.
    assembled: the program of the run.
    source: the training data, which names the classes.

  Returns:
    Start.

  Raises:
    ValueError: names why the run cannot start from those weights.
    damaged_file.DamagedFile: the checkpoint is damaged.
  """
  steps = reader.agreed_steps(workdir)
  if steps:
    return _resumed(c, workdir, steps)
  options = assembled.schedule
  if not options.init_from:
    return Start(c, lines=_untrained_mean(c))
  found = weight_source.find(options, workdir / reader.CONFIG)
  matching = weight_matching.match(
    _network(found.config, found.shapes, found.classes),
    _network(c, reader.shapes(assembled.state.params), source.class_names),
  )
  _check_matching(matching, found, options)
  weights = SourceWeights(found, matching, assembled)
  place = f'{bucket_folders.shown(found.folder)}@{found.step}'
  record = {'init_from': place, 'init_from_sha256': found.sha256}
  return Start(init_record.with_record(c, record), weights, _lines(weights, c))


def _untrained_mean(c: ConfigDict) -> Sequence[str]:
  """Returns a line if details are drawn over a mean that nobody trained."""
  if c.get('model') is None or not bound_diffusion.is_detail(c):
    return ()
  return (
    f'warning: {KEY} is not set, so the mean that details are drawn over is '
    'that of a new network, the enlarged low-res image. Give the run of a '
    f'trained mean, such as --{KEY}=runs/faithful.',
  )


class SourceWeights:
  """The arrays that a run starts from, read when they are needed."""

  def __init__(
    self,
    source: weight_source.Source,
    matching: weight_matching.Matching,
    assembled: Program,
  ):
    """Keeps what `find_start` found.

    Args:
      source: the checkpoint or the file.
      matching: which array becomes which.
      assembled: the program of the run.
    """
    self.source, self.matching = source, matching
    self._assembled = assembled

  def read(self) -> states.Weights:
    """Reads the arrays, each onto the devices that need it.

    An array that is taken as it is goes to the places of the parameter; no
    device or host holds more of it. The few others are small, and whole on
    every device.
    """
    abstract = self._assembled.state.params
    leaves = {
      partitioning.parameter_name(path): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    whole = device_mesh.replicated(self._assembled.mesh)
    wanted = {}
    for names, _ in self.matching.made.values():
      for name in names:
        wanted[name] = jax.ShapeDtypeStruct(
          self.source.shapes[name], np.float32, sharding=whole
        )
    for name, old in self.matching.taken.items():
      wanted[old] = leaves[name]
    return states.Weights(self.source.read(wanted), self._merge)

  def _merge(self, params: Any, arrays: weight_matching.Arrays) -> Any:
    """Returns random parameters with the matched ones in their place."""

    def choose(path, leaf):
      name = partitioning.parameter_name(path)
      if name in self.matching.taken:
        return arrays[self.matching.taken[name]].astype(leaf.dtype)
      if name in self.matching.made:
        return self.matching.made[name][1](arrays).astype(leaf.dtype)
      return leaf

    return jax.tree_util.tree_map_with_path(choose, params)


def _check_matching(
  matching: weight_matching.Matching,
  found: weight_source.Source,
  options: run_config.Run,
) -> None:
  """Raises ValueError if a run may not start from a network that differs.

  Args:
    matching: which of its arrays are taken.
    found: the source.
    options: the `train` section of the run.
  """
  if options.init_missing == 'refuse' and not matching.agrees:
    raise ValueError(
      f'{KEY} is {options.init_from}, whose network differs: '
      f'{"; ".join(_differences(matching, _MOST_NAMES))}. Use the model '
      f'section of {_config_of(found.folder)}, or '
      '--config.train.init_missing=initialize to take what agrees.'
    )
  if not matching.taken:
    raise ValueError(
      f'{KEY} is {options.init_from}, which has no array of the names and '
      f'shapes of this network; it holds {found.config.get("name")!r}. Give a '
      'run of the same kind of network.'
    )


def _network(
  c: ConfigDict,
  shapes: Mapping[str, tuple[int, ...]],
  names: Sequence[str] | None,
) -> weight_matching.Network:
  """Describes the network of a config, whose parameters have these shapes."""
  return weight_matching.Network(
    shapes,
    num_classes=c.model.get('num_classes'),
    null_class=c.model.get('null_class', False),
    class_names=names,
    patch_size=c.model.get('patch_size', 1),
  )


def _differences(
  matching: weight_matching.Matching, most: int | None = None
) -> list[str]:
  """Returns what a matching could not account for, in words.

  Args:
    matching: the matching.
    most: so many blocks are named of each kind; None names all.
  """
  differing = [
    f'{name} (source {list(old)}, here {list(new)})'
    for name, (old, new) in matching.differing.items()
  ]
  return [
    f'{what} {_few(names, most)}'
    for what, names in (
      ('of another shape:', differing),
      ('missing in the source:', _blocks(matching.missing)),
      ('only in the source:', _blocks(matching.unused)),
    )
    if names
  ]


def _blocks(names: Sequence[str]) -> list[str]:
  """Returns the blocks that parameters belong to, with their numbers."""
  counts: dict[str, int] = {}
  for name in names:
    block = name.split('/')[0]
    counts[block] = counts.get(block, 0) + 1
  return [
    f'{block} ({n} arrays)' if n > 1 else f'{block} (1 array)'
    for block, n in counts.items()
  ]


def _few(names: Sequence[str], most: int | None) -> str:
  shown = names if most is None else names[:most]
  more = len(names) - len(shown)
  return ', '.join(shown) + (f' and {more} more' if more else '')


def _config_of(folder: pathlib.Path) -> str:
  """Returns where the config of a source is read, for an error."""
  if packed_stage.is_packed(folder):
    return f'the config in {folder}'
  return str(folder / reader.CONFIG)


def _lines(weights: SourceWeights, c: ConfigDict) -> list[str]:
  """Returns what to tell about weights that a run starts from."""
  source, matching = weights.source, weights.matching
  saved = source.config
  given = len(matching.taken) + len(matching.made)
  total = given + len(matching.fresh) + len(matching.missing)
  total += len(matching.differing)
  lines = [
    f'starting from the {source.which} parameters of step {source.step} of '
    f'{source.folder}: {given} of {total} arrays'
  ]
  lines += [f'  {note}' for note in matching.notes]
  if not matching.agrees:
    lines += [f'  initialized or left out, {d}' for d in _differences(matching)]
  # Weights mean another thing where these differ, so that is said.
  for section in ('schedule', 'lowres', 'model', 'method'):
    old, new = saved.get(section), c.get(section)
    if isinstance(old, loader.ConfigDict) and isinstance(
      new, loader.ConfigDict
    ):
      lines += [
        f'  the source has another value of {line}'
        for line in loader.changes(old, new, f'config.{section}')
      ]
  return lines


def _resumed(c: ConfigDict, workdir: pathlib.Path, steps: list[int]) -> Start:
  """Keeps what a run has recorded of its start, whatever is asked for now."""
  recorded = init_record.recorded_in_checkpoint(workdir, steps)
  asked, begun = c.train.get('init_from', ''), recorded.get('init_from', '')
  lines = []
  if asked and not init_record.is_meant(asked, begun):
    lines.append(
      f'{KEY} is {asked}, but this run began from {begun or "random weights"} '
      'and goes on; weights are taken at the first start only. Use another '
      '--workdir to start from them.'
    )
  return Start(init_record.with_record(c, recorded, only=True), lines=lines)
