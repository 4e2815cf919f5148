"""Prints what a run that starts is: its config's changes, network and data."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import jax

from cdm.checkpointing import reader
from cdm.config import loader, placement, stage_warnings
from cdm.data.files import damaged_file
from cdm.distributed import partitioning, source_commit
from cdm.reporting.text_table import format_si
from cdm.training import group_rates, program, rate_change, sample_grid

if TYPE_CHECKING:
  from cdm.config.loader import ConfigDict
  from cdm.reporting.metric_writer import Reporter


def print_config_changes(c: ConfigDict, workdir: pathlib.Path) -> None:
  """Prints the config values that changed since the run was last started.

  And what that means for the learning rate, where the run goes on.
  """
  path = workdir / reader.CONFIG
  if not path.exists():
    return
  try:
    before = loader.read_json(path)
  except damaged_file.DamagedFile as error:
    # A copy for people, which the run writes anew; its checkpoints have theirs.
    print(f'{error} It is written anew.')
    return
  for line in loader.changes(before, c):
    print(f'changed since the last start: {line}')
  steps = reader.complete_steps(workdir)
  change = rate_change.rate_change(before, c, max(steps)) if steps else None
  if change:
    print(change)


def print_run_summary(
  reporter: Reporter,
  c: ConfigDict,
  assembled: program.Program,
  source: Any,
) -> None:
  """Prints three lines about the run that starts, and warnings of its config.

  And one for the mesh of several devices, one for the sample grids, and one for
  every group of parameters with a learning rate of its own.

  Args:
    reporter: prints the lines.
    c: config of the stage.
    assembled: the program of the run.
    source: the training data, see `data.source`.
  """
  built, mesh = assembled.built, assembled.mesh
  params = assembled.state.params
  parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
  size = f'{c.pipeline.image_size} px'
  if built.lowres is not None:
    size = f'{built.lowres.size} -> {size}'
  reporter.say(f'commit {source_commit.commit() or "unknown"} of cdm')
  reporter.say(
    f'{c.name}: {size}, {parameters:,} parameters, {built.net.dtype} on '
    f'{mesh.size} {jax.devices()[0].platform} device'
    + ('s' if mesh.size > 1 else '')
  )
  classes = f', {source.num_classes} classes' if source.num_classes else ''
  reporter.say(f'data: {len(source):,} images{classes} ({c.train_data.kind})')
  if mesh.size > 1:
    reporter.say(mesh_line(c, assembled))
  grids = sample_grid.describe(c, assembled)
  if grids:
    reporter.say(grids)
  for line in group_rates.summary(assembled.tx.groups, params):
    reporter.say(line)
  for text in stage_warnings.stage_warnings(built):
    reporter.say(f'warning: {text}')


def mesh_line(c: ConfigDict, assembled: program.Program) -> str:
  """Returns a line about the mesh, and what a device holds of the state.

  For example 'mesh: data 8, fsdp 4 (chosen by mesh.fsdp=0: as many as a
  host has); each device holds 404 MB of 1.61 GB of the training state'.

  Args:
    c: config of the stage.
    assembled: the program of the run.
  """
  shape, state = assembled.mesh.shape, assembled.state
  axes = ', '.join(f'{axis} {n}' for axis, n in shape.items() if n > 1)
  if placement.is_fsdp_chosen(c.mesh):
    why = 'as many as a host has' if shape['fsdp'] > 1 else 'fsdp 1, one host'
    axes += f' (chosen by mesh.fsdp=0: {why})'
  held = partitioning.device_bytes(state)
  whole = sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
  )
  return (
    f'mesh: {axes}; each device holds {format_si(held, "B")} of '
    f'{format_si(whole, "B")} of the training state'
  )
