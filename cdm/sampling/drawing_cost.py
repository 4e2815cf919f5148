"""Counts the network evaluations that an image of a stage costs."""

import numpy as np

from cdm.diffusion import sampler_steps
from cdm.methods.diffusion_options import Tuned
from cdm.sampling import cascade


def steps_and_evaluations(
  stage: cascade.Stage, follower: cascade.Stage | None = None
) -> tuple[int, int]:
  """Returns the steps and the network evaluations of one image of a stage.

  Guidance evaluates the network twice in each evaluation of the sampler.

  Args:
    stage: the stage, which may start at a noise level.
    follower: the stage after it, for which it may stop early; None for the
      last.
  """
  tuned = cascade.settings_of(stage, follower).tuned
  if not isinstance(tuned, Tuned):
    return stage.evaluations, stage.evaluations
  evaluations = sampler_steps.evaluations_of(tuned.steps)
  doubled = 2 if np.any(tuned.guidance_weight) else 1
  return int(tuned.steps.count), doubled * evaluations
