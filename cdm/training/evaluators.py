"""Builds the evaluations that a config asks for in its section `eval`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from cdm.checkpointing.writer import Checkpointer
from cdm.config import class_agreement, datasets
from cdm.config.loader import ConfigDict
from cdm.data.source import Source
from cdm.reporting.metric_writer import Reporter
from cdm.training import eval_section, held_out_loss, held_out_pairs
from cdm.training.best_checkpoint import BestCheckpoint
from cdm.training.eval_section import Evaluation
from cdm.training.hooks import Evaluator
from cdm.training.program import Program

# (config, its program, its section `eval`, work directory) -> (`run`, `forget`)
# of an `Evaluator`, which computes `eval_section.FID`. The package `evaluation`
# has it, and training may not import that package, so the command hands the
# function in.
MakeFid = Callable[
  [ConfigDict, Program, Evaluation, pathlib.Path], tuple[Callable, Callable]
]


def with_training_classes(
  c: ConfigDict, assembled: Program, source: Source
) -> ConfigDict:
  """Checks that held-out images have the classes of the training data.

  Nothing is opened if the run reads no held-out images.

  Args:
    c: config of one stage.
    assembled: its program.
    source: its training data.

  Returns:
    The config to evaluate with, see `class_agreement.matched`.

  Raises:
    ValueError: the evaluation data cannot be opened, or have other classes.
  """
  options, upscales = assembled.evaluation, assembled.built.lowres is not None
  by_number = options.every_steps and (
    options.batches or (upscales and options.num_pairs)
  )
  grids = c.train.num_samples and c.train.sample_every_steps
  if not by_number and not (upscales and (grids or options.fid_every_steps)):
    return c
  names = source.class_names if getattr(source, 'named', True) else None
  c = class_agreement.matched(c, names)
  class_agreement.check_evaluation(
    c,
    assembled.built.net.num_classes,
    names,
    remedy=datasets.EVALUATE_NOTHING if by_number else None,
  )
  return c


def make_evaluators(
  c: ConfigDict,
  assembled: Program,
  workdir: pathlib.Path,
  make_fid: MakeFid | None = None,
) -> tuple[Evaluator, ...]:
  """Builds the evaluations of a run, and reads the images that they need.

  Args:
    c: config of one stage.
    assembled: its program.
    workdir: work directory of the run.
    make_fid: builds the evaluation of FID; it may be None if the config asks
      for none.

  Raises:
    ValueError: the evaluation data cannot be used.
  """
  options = assembled.evaluation
  found = []
  if options.every_steps and options.batches:
    run = held_out_loss.make_held_out_loss(c, assembled)
    found.append(
      Evaluator(eval_section.LOSS, options.every_steps, run, uses_frozen=True)
    )
  draws_pairs = options.num_pairs and assembled.built.lowres is not None
  if options.every_steps and draws_pairs:
    run = held_out_pairs.make_held_out_pairs(c, assembled)
    found.append(Evaluator(eval_section.PSNR, options.every_steps, run))
  if options.fid_every_steps:
    if make_fid is None:
      raise ValueError(
        f'config.eval.fid_every_steps is {options.fid_every_steps}, but this '
        'run was started by a command that computes no FID; use cdm train, or '
        '--config.eval.fid_every_steps=0.'
      )
    made = make_fid(c, assembled, options, workdir)
    found.append(Evaluator(eval_section.FID, options.fid_every_steps, *made))
  return tuple(found)


def make_best(
  assembled: Program, checkpointer: Checkpointer, reporter: Reporter
) -> BestCheckpoint | None:
  """Returns what keeps the best checkpoint, or None if the config asks not to.

  Args:
    assembled: the program of the run.
    checkpointer: saves the checkpoints of the run.
    reporter: has the record of the run.
  """
  metric = assembled.evaluation.best
  if not metric:
    return None
  return BestCheckpoint(
    metric,
    higher_is_better=eval_section.HIGHER_IS_BETTER[metric],
    checkpointer=checkpointer,
    reporter=reporter,
  )
