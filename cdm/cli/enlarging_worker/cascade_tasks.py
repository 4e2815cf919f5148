"""Draws from a cascade: what the worker does for `cdm serve --samples`."""

import pathlib
import secrets
from typing import Any

import numpy as np
from PIL import Image

from cdm.cli.enlarging_worker.task_report import Report
from cdm.distributed import device_mesh
from cdm.sampling import cascade, drawing_batch, generate, loaded_model
from cdm.sampling.drawing_stage import Stage
from cdm.sampling.loaded_model import Choice, Model
from cdm.sampling.one_ahead import one_ahead

COUNT = 4  # images that the page first asks for


def opened(given: dict[str, Any]) -> 'CascadeTasks':
  """Opens a cascade or a base model.

  Args:
    given: what `cdm serve` was given: samples (CONFIG@WORKDIR, or WORKDIR of a
      base model), at, sampler and steps.

  Raises:
    FileNotFoundError: a stage has no checkpoint.
    ValueError: it cannot be used.
  """
  config, at, workdir = given['samples'].rpartition('@')
  choice = Choice(
    at=given['at'], sampler=given['sampler'], steps=given['steps']
  )
  tasks = CascadeTasks(workdir, config if at else None, choice)
  tasks.warm_up()
  return tasks


class CascadeTasks:
  """The task: draw images of every stage.

  Attributes:
    about: what the page is told of the cascade.
  """

  def __init__(self, workdir: str, config: str | None, choice: Choice):
    """Restores the stages.

    Args:
      workdir, config: see `loaded_model.load`.
      choice: the checkpoint and the sampler.

    Raises:
      ValueError: they are no cascade, or draw no RGB images.
    """
    self._given = workdir, config, choice
    self._plain = model = loaded_model.load(*self._given)
    if not model.stages:
      raise ValueError(
        f'{workdir} holds a super-resolution stage, which needs a picture; '
        'give it as --workdir, or the cascade that it belongs to as --samples.'
      )
    cascade.refuse_others(model.stages[-1])
    self._guided: Model | None = None
    self._programs: dict[bool, dict[Any, Any]] = {False: {}, True: {}}
    self._weights = {
      stage.name: weight
      for stage in model.stages
      if (weight := _weight(stage)) is not None
    }
    num_classes = model.num_classes or 0
    self.about: dict[str, Any] = {
      'kind': 'cascade',
      'name': model.name,
      'stages': [
        {'name': stage.name, 'size': stage.image_size} for stage in model.stages
      ],
      'num_classes': num_classes,
      'class_names': list(model.class_names),
      'guided': self._weights,
      'count': COUNT,
    }

  def warm_up(self) -> None:
    """Draws as many images as the page first asks for, to compile that."""
    for _ in self._begun(self._plain.stages, False, COUNT, 0, None):
      pass

  def run(self, request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Draws images; see `asked_tasks.draw`."""
    folder = pathlib.Path(request['folder'])
    stages, guided = self._stages(request['guidance'])
    count, label = request['count'], request['label']
    prefix = f'draw-{secrets.token_hex(4)}'
    images: list[list[str]] = []  # of each, the files of every stage
    report.advance(0, count)
    for drawn in self._begun(stages, guided, count, request['seed'], label):
      for shown in zip(*drawn, strict=True):
        names = [f'{prefix}-{len(images)}-{i}.png' for i in range(len(shown))]
        for name, one in zip(names, shown, strict=True):
          Image.fromarray(one).save(folder / name)
        images.append(names)
      media = [name for names in images for name in names]
      report.found({'media': media, 'images': images})
      report.advance(len(drawn[0]), count)
    return {'drawn': {'seed': request['seed'], 'label': label}}

  def _stages(self, guidance):
    """Returns (the stages with other weights of guidance, whether guided)."""
    asked = {**self._weights, **guidance}
    if asked == self._weights:
      return self._plain.stages, False
    if self._guided is None:
      workdir, config, choice = self._given
      # Guidance of weight 0 is another program.
      weights = {name: weight or 1.0 for name, weight in self._weights.items()}
      only = weights if config is not None else next(iter(weights.values()))
      self._guided = loaded_model.load(
        workdir, config, choice._replace(guidance=only)
      )
    return [
      _weighted(stage, asked.get(stage.name)) for stage in self._guided.stages
    ], True

  def _begun(self, stages, guided, count, seed, label):
    """Yields the images of batches, [uint8 [n, H, W, 3] of each stage]."""
    draw = cascade.sampler(stages, self._programs[guided])
    size = generate.padded_batch_size(
      stages, count, drawing_batch.batch_size(stages, num=count)
    )
    labels = None
    if self.about['num_classes']:  # all of them in rotation, or one
      labels = range(self.about['num_classes']) if label is None else [label]
    begun = generate.begin_batches(
      draw, seed, generate.label_cycle(labels, count), range(count), size
    )
    for indices, drawn in one_ahead(begun):
      yield [
        np.asarray(device_mesh.fetch(images))[: len(indices)]
        for images in drawn
      ]


def _weight(stage: Stage) -> float | None:
  """Returns the weight of a stage's guidance; None if it cannot be guided."""
  if stage.tune is None or not stage.null_class:
    return None
  weight = getattr(cascade.settings_of(stage).tuned, 'guidance_weight', None)
  return None if weight is None else float(weight)


def _weighted(stage: Stage, weight: float | None) -> Stage:
  """Returns a guided stage with another weight, of the same program."""
  if weight is None or stage.tune is None:
    return stage
  tune = stage.tune

  def tuned(*given: Any) -> Any:
    made = tune(*given)
    return made._replace(guidance_weight=np.asarray(weight, np.float32))

  return stage._replace(tune=tuned)
