"""Computes FID while a stage is trained, with the code of `cdm evaluate`.

Images are drawn with the EMA parameters as they lie on the training mesh, at
the seed that `cdm evaluate` takes by default, so that it gives the same number
for the checkpoint of that step. The statistics of the reference are computed
once and kept in the user's cache. What a run that is stopped has drawn is kept
in WORKDIR/partial_fid until the number is recorded; it is that of the very
parameters and settings, or it is drawn again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cdm.config import datasets, evaluated_images, loader, stage
from cdm.data.files import damaged_file
from cdm.distributed import collectives, user_cache
from cdm.evaluation import (
  compare_sets,
  drawn_images,
  image_source,
  partial_results,
  reference_statistics,
  set_metrics,
  set_name,
)
from cdm.evaluation.drawn_images import Batches
from cdm.evaluation.extract_features import Gatherer, Stopped
from cdm.reporting import bucket_mirror
from cdm.sampling import (
  cascade,
  drawing_batch,
  restore,
  stage_record,
  upscaler,
)
from cdm.training import eval_section

if TYPE_CHECKING:
  from cdm.config.loader import ConfigDict
  from cdm.training.eval_section import Evaluation
  from cdm.training.program import Program

METRICS = ('fid',)
FOLDER = 'partial_fid'  # in the work directory
SAMPLES = 'FID samples'
# Sections of a config that no image depends on, given the parameters.
UNRELATED = ('train', 'optimizer', 'ema', 'paper')
STAGE_SEED = 0  # what `cdm evaluate --samples=WORKDIR@eval` takes by default

# (EMA parameters) -> the batches that are drawn with them.
DrawnWith = Callable[[Any], Batches]


def make_fid(
  c: ConfigDict,
  assembled: Program,
  options: Evaluation,
  workdir: pathlib.Path,
) -> tuple[
  Callable[[Any, Any, Callable[[], bool]], dict[str, float] | None],
  Callable[[], None],
]:
  """Opens all that FID in training needs, and returns what computes it.

  Args:
    c: config of one stage.
    assembled: its program.
    options: its section `eval`.
    workdir: work directory of the run, which holds it.

  Returns:
    `run(params, ema_params, stop_asked)` and `forget()`, see
    `training.hooks.Evaluator`. The sampler is compiled at the first call only.

  Raises:
    ValueError: the weights of Inception are missing, or the reference or the
      held-out data cannot be used; names the key.
  """
  gatherer = open_network(options)
  reference = open_reference(c, options, gatherer)
  samples, drawn_with = open_samples(c, assembled, options)
  recipe = compare_sets.join_manifests(samples.recipe, gatherer.recipe)
  warn(options, reference, recipe, reference.recipe(gatherer))
  made: list[reference_statistics.Statistics | None] = []
  home = workdir / FOLDER
  settings = [reference.name, reference.recipe(gatherer), drawing_settings(c)]

  def run(params, ema_params, stop_asked):
    del params  # FID is that of the averaged parameters.
    try:
      if not made:
        made.append(statistics(reference, gatherer, stop_asked))
      gathered = gatherer.gather_in(
        home,
        samples._replace(
          batches=drawn_with(ema_params),
          stamp=[settings, parameter_digest(ema_params)],
        ),
        METRICS,
        SAMPLES,
        stop_asked=stop_asked,
      )
    except Stopped:
      return None
    value = None
    if collectives.is_first():  # It takes the host seconds.
      compared = set_metrics.compare(gathered, made[0], metrics=METRICS)
      value = float(compared.scores['fid'])
    return {eval_section.FID: collectives.broadcast_object(value)}

  def forget():
    gatherer.forget(SAMPLES)
    if collectives.is_first():
      with contextlib.suppress(OSError):  # It is not there, or not empty.
        home.rmdir()

  return run, forget


def open_network(options: Evaluation) -> Gatherer:
  """Loads Inception.

  Raises:
    ValueError: its weights are missing or damaged.
  """
  flag = '--config.eval.fid_weights=FILE'
  try:
    return Gatherer(options.fid_weights or None, flag=flag)
  except (ValueError, OSError) as error:
    raise damaged_file.reworded(
      error,
      f'config.eval.fid_every_steps is {options.fid_every_steps}, and FID '
      f'needs the weights of Inception: {error} Without FID, use '
      '--config.eval.fid_every_steps=0.',
    ) from error


def open_reference(
  c: ConfigDict, options: Evaluation, gatherer: Gatherer
) -> compare_sets.Reference:
  """Opens the images or the statistics that samples are compared with.

  Raises:
    ValueError: they cannot be used; names the key.
  """
  what, source = options.fid_reference, None
  if not what:
    what = f'{c.name}:train'
    source = image_source.config_data(c, 'train', None, 'the config')
  if source is None and set_name.asks_to_draw(what):
    raise ValueError(
      f'config.eval.fid_reference is {what!r}; while a stage is trained its '
      'reference is not drawn. Give statistics (cdm evaluate '
      '--make_reference), images, or CONFIG.py:train.'
    )
  try:
    reference = compare_sets.Reference(
      bucket_mirror.local_file(what), METRICS, source=source
    )
    reference.check(gatherer.sizes)
  except (ValueError, OSError) as error:
    raise damaged_file.reworded(
      error,
      f'config.eval.fid_reference is {what!r}, which cannot be used: {error} '
      'Set it with --config.eval.fid_reference=WHAT.',
    ) from error
  return reference


def open_samples(
  c: ConfigDict, assembled: Program, options: Evaluation
) -> tuple[image_source.Source, DrawnWith]:
  """Prepares the drawing of samples, without drawing any.

  Args:
    c, assembled, options: see `make_fid`.

  Returns:
    (the samples, whose `batches` cannot be used; a function that makes batches
    of EMA parameters).
  """
  built = assembled.built
  if options.sampler_steps is not None:
    built = stage.stage(c, sampler_steps=options.sampler_steps)
  level = options.level if built.lowres is not None else 0.0
  shapes = assembled.state.ema_params
  drawn = cascade.Stage.of(
    built, shapes, assembled.mesh, name=c.name, level=level
  )
  sample = built.sample_in_training
  assert sample is not None  # a classifier computes no FID
  drawn = drawn._replace(sample=sample, boxes=built.boxes(shapes))
  record = stage_record.of_stage(
    c, step=0, level=level, sampler=built.drawn_with
  )
  # Training goes on afterwards, so that its state stays in memory.
  state_bytes = drawing_batch.parameter_bytes(assembled.state)
  at_once = functools.partial(
    drawing_batch.batch_size,
    [drawn],
    num=options.fid_num,
    resident_bytes=state_bytes - drawing_batch.parameter_bytes(shapes),
  )
  if built.lowres is None:
    return _base_samples(c, drawn, record, options.fid_num, at_once())
  size = at_once(
    on_cpus=restore.UPSCALED_ON_CPUS,
    most=drawing_batch.OWN_ROWS.on_hosts(drawn.image_size, drawn.mesh),
  )
  return _stage_samples(c, drawn, record, options.fid_num, size)


def _base_samples(
  c: ConfigDict,
  drawn: cascade.Stage,
  record: stage_record.StageRecord,
  num: int,
  at_once: int,
) -> tuple[image_source.Source, DrawnWith]:
  """Prepares the samples of a base model: all classes in turn."""
  draw, labels = (
    cascade.sampler([drawn]),
    drawn_images.label_cycle([drawn], num),
  )

  def drawn_with(params):
    return drawn_images.cascade_batches(
      lambda *given: draw(*given, [params]),
      seed=c.seed,
      labels=labels,
      num=num,
      size=at_once,
    )

  recipe = drawn_images.cascade_recipe(
    c.name, [drawn], [record.manifest()], seed=c.seed, num=num
  )
  return _source(num, recipe, at_once), drawn_with


def _stage_samples(
  c: ConfigDict,
  drawn: cascade.Stage,
  record: stage_record.StageRecord,
  num: int,
  at_once: int,
) -> tuple[image_source.Source, DrawnWith]:
  """Prepares the samples of a super-resolution stage, of held-out images."""
  available = len(datasets.open_source(c.eval_data, 'eval_data'))
  if num > available:
    raise ValueError(
      f'config.eval.fid_num is {num}, but config.eval_data holds {available:,} '
      'images, and each is drawn once. Use at most '
      f'--config.eval.fid_num={available}.'
    )
  read, _ = evaluated_images.open_evaluated(c, num)
  draw, given = upscaler.jit_upscaling(drawn), []
  upscale = dataclasses.replace(
    upscaler.stage_upscaler(drawn, record, batch_size=at_once),
    # One `Upscaler` serves all evaluations, so that it is compiled once.
    upscale_batch=lambda *batch: draw(given[0], *batch),
  )
  drawn_of = drawn_images.stage_batches(
    upscale, read, seed=STAGE_SEED, count=num
  )

  def drawn_with(params):
    def batches(first, size):
      given[:] = [params]
      try:
        yield from drawn_of(first, size)
      finally:
        given.clear()  # The state of this step is not kept in memory.

    return batches

  recipe = {
    'drawn': c.name,
    'count': num,
    'image_size': [drawn.image_size] * 2,
    'stages': [record.manifest('name')],
  }
  return _source(num, recipe, at_once), drawn_with


def _source(count: int, recipe: Any, at_once: int) -> image_source.Source:
  """Returns the samples; their batches come with the parameters."""

  def batches(first, size):
    raise AssertionError('these batches need parameters')

  return image_source.Source(count, batches, recipe, {}, None, at_once)


def drawing_settings(c: ConfigDict) -> dict[str, Any]:
  """Returns what the images of given parameters may depend on in a config."""
  return {k: v for k, v in loader.plain(c).items() if k not in UNRELATED}


def parameter_digest(params: Any) -> list[str]:
  """Returns what identifies parameters and their layout, to the last bit.

  A collective: every process must call it. Each looks at what it holds.

  Args:
    params: tree of jax.Array.

  Returns:
    A digest of each process, the same list in all processes.
  """
  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
    found.update(jax.tree_util.keystr(path).encode())
    parts = {str(shard.index): shard for shard in leaf.addressable_shards}
    for index, shard in sorted(parts.items()):  # each once, of all its copies
      found.update(f'{index}{leaf.dtype}'.encode())
      found.update(np.asarray(shard.data).tobytes())
  return collectives.gather_objects(found.hexdigest()[:32])


def warn(
  options: Evaluation,
  reference: compare_sets.Reference,
  samples_recipe: Any,
  reference_recipe: Any,
) -> None:
  """Prints why the number will not be comparable with published ones."""
  if not collectives.is_first():
    return
  warnings = reference_statistics.differences(
    samples_recipe, reference_recipe or {}
  )
  fewest = min(options.fid_num, reference.count or options.fid_num)
  if fewest < set_metrics.FEWEST:
    warnings.append(
      f'FID of {fewest:,} images is biased upwards; compare it with FID of as '
      'many images only'
    )
  for warning in warnings:
    print(f'cdm: NOT COMPARABLE: {warning}.', file=sys.stderr, flush=True)


def statistics(
  reference: compare_sets.Reference,
  gatherer: Gatherer,
  stop_asked: Callable[[], bool],
) -> reference_statistics.Statistics | None:
  """Returns the statistics of the reference, which are computed once.

  Statistics of images are kept in the user's cache, where the next start finds
  them. A collective: every process must call it; process 0 alone, which
  compares, is sure to get them.

  Raises:
    Stopped: the run was asked to stop; the same call continues.
  """
  if reference.stored is not None:
    return reference.stored
  source = reference.source
  assert source is not None
  settings = [source.recipe, source.stamp, gatherer.recipe, METRICS]
  path = user_cache.folder('evaluate')
  path /= f'reference-{partial_results.digest(settings)}.npz'
  found = None
  if collectives.is_first() and path.is_file():
    try:
      found = reference_statistics.read(path)
    except (damaged_file.DamagedFile, OSError) as error:
      user_cache.warn(f'{error} It is made again.')
  if collectives.broadcast_from_first(found is not None):
    return found
  gathered = gatherer(source, METRICS, 'FID reference', stop_asked=stop_asked)
  made = reference_statistics.from_gathered(
    gathered, compare_sets.join_manifests(source.recipe, gatherer.recipe)
  )
  if collectives.is_first():
    try:
      reference_statistics.write(path, made)
    except OSError as error:
      user_cache.warn(f'the statistics of the reference are not kept: {error}')
  gatherer.forget('FID reference')
  return made
