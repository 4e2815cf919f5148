"""Restores the weaker network that guides a stage, [Autoguidance].

It comes from a checkpoint of its own, which may be an earlier one of the same
run: the config that was saved there builds it, and its EMA parameters are used.
It lies on the devices as the parameters of the stage do, and both are arguments
of the compiled program.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from cdm.checkpointing import average_names, checkpoint_name, reader
from cdm.config import (
  built_stage,
  guide_agreement,
  instantiate,
  loader,
  placement,
  stage,
)
from cdm.data import class_names
from cdm.methods import autoguided
from cdm.sampling import cascade
from cdm.sampling.restored_parameters import RestoredParameters


class GuideNote(TypedDict):
  """A guide in the manifest of an output folder, in a section `sampler`.

  Attributes:
    workdir: its work directory, as it was given.
    experiment: name of its config.
    checkpoint: step of the checkpoint that its parameters come from.
    ema: which of their averages; left out for the main one.
  """

  workdir: str
  experiment: str
  checkpoint: int
  ema: NotRequired[str]


def guided(
  main: cascade.Stage,
  built: built_stage.Stage,
  sampler: Mapping[str, Any] | loader.ConfigDict,
  *,
  workdir: pathlib.Path,
  mesh: Mapping[str, Any] | loader.ConfigDict,
  kept: RestoredParameters,
) -> tuple[cascade.Stage, Mapping[str, Any] | loader.ConfigDict]:
  """Returns a stage that the guide of its `sampler` section guides, if any.

  With a weight of 0 the guide is only checked: no array of it is read.

  Args:
    main: the stage, ready to draw.
    built: what its config describes.
    sampler: the section that it draws with.
    workdir: its work directory.
    mesh: its section `mesh`.
    kept: what earlier calls have restored.

  Returns:
    (the stage, the section for manifests, whose guide is a `GuideNote`).

  Raises:
    FileNotFoundError: the guide has no such checkpoint.
    ValueError: it does not fit the stage, or has no such average.
  """
  name = guide_agreement.name_of(sampler)
  if not name:
    return main, sampler
  home, at = guide_agreement.split_name(name)
  step = reader.resolve(home, at)
  average = checkpoint_name.split(at)[1]
  saved = loader.from_json(reader.read_config(home, step=step), home)
  stage.refuse_classifier(saved, f'a guide (in {home})')
  guide = stage.stage(saved)
  guide_agreement.check(built, guide, name=name, level=main.level)
  _check_classes(class_names.read(workdir), class_names.read(home), guide, name)
  note: GuideNote = {
    'workdir': str(home),
    'experiment': saved.name,
    'checkpoint': step,
  }
  if average != average_names.MAIN:
    note['ema'] = average
  noted = {**instantiate.as_dict('sampler', sampler), 'guide': note}
  if not sampler.get('guidance_weight'):
    return main, noted
  assert main.mesh is not None, 'a restored stage has a mesh'
  placed = placement.placed_params(guide.method, mesh, main.mesh)
  params, _ = kept.restore(home, placed, step, average, role='guide')
  boxes = None
  if main.boxes is not None:
    boxes = functools.partial(_boxed, main.boxes, guide.boxes(params))
  drawn = main._replace(
    sample=autoguided.sampling(built.method, guide.method),
    canvas=autoguided.on_canvases(built.method, guide.method),
    params=autoguided.Parameters(main.params, params),
    boxes=boxes,
    guide_trace=guide.trace,
  )
  return drawn, noted


def _boxed(strong, weak, params):
  return autoguided.Parameters(strong(params.strong), weak(params.weak))


def _check_classes(own, other, guide, name):
  if guide.net.num_classes is None or not own or not other:
    return
  if tuple(own) != tuple(other):
    raise ValueError(
      f'The guide {name} ({guide.config.name!r}) was trained on other classes, '
      'or on the same ones in another order, so one label would mean different '
      'things to the two networks; name another one.'
    )
