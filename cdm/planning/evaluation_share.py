"""Counts what the evaluations of a training run cost, in training steps.

  steps = evaluations * images * passes / (training passes * batch size)

A pass is one forward pass of the network; a training step counts as three per
image, and one with a teacher as more (`Stage.training_passes`). What FID's own
network and reading images take is not counted.
"""

from cdm.config import stage
from cdm.training import program


def evaluation_steps(training: program.Program) -> float:
  """Returns the number of training steps that take as long as the evaluations.

  Args:
    training: the program of the run.
  """
  options, built = training.evaluation, training.built
  size, num_steps = training.schedule.batch_size, training.schedule.num_steps
  passes = 0.0
  if options.every_steps:
    pairs = options.num_pairs if built.lowres is not None else 0
    drawn = pairs * _passes_of_a_sample(training) if pairs else 0
    # The raw and the EMA parameters.
    once = 2 * options.batches * size * built.loss_passes + drawn
    passes += -(-num_steps // options.every_steps) * once
  if options.fid_every_steps:
    drawn = options.fid_num * _passes_of_a_sample(training)
    passes += -(-num_steps // options.fid_every_steps) * drawn
  return passes / (built.training_passes * size)


def _passes_of_a_sample(training):
  """Returns how often drawing an image for an evaluation runs the network."""
  built, steps = training.built, training.evaluation.sampler_steps
  if steps is None:
    return built.evaluations
  return stage.stage(built.config, sampler_steps=steps).evaluations
