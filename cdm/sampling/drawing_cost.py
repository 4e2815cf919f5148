"""Counts what an image costs: network evaluations of every stage, FLOPs."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from cdm.diffusion import sampler_steps
from cdm.methods.diffusion_options import Tuned
from cdm.sampling import cascade


class StageCost(TypedDict):
  """What one image costs in one stage.

  Attributes:
    name: name of the stage.
    evaluations: network evaluations, those of a guide among them.
    flops: of all these evaluations, see `models.flops`.
  """

  name: str
  evaluations: int
  flops: int


def of_stages(stages: Sequence[cascade.Stage]) -> list[StageCost]:
  """Returns what an image costs in each stage of a cascade, or in one stage.

  The networks are traced, which takes a second or so each.

  Args:
    stages: stages that were built from configs, in their order.
  """
  costs: list[StageCost] = []
  for stage, follower in zip(stages, [*stages[1:], None], strict=True):
    _, evaluations = steps_and_evaluations(stage, follower)
    assert stage.trace is not None
    _, flops = stage.trace()
    flops *= evaluations
    if stage.guide_trace is not None:
      # Half of the evaluations are those of the guide, a network of its own.
      flops = flops // 2 + evaluations // 2 * stage.guide_trace()[1]
    costs.append(
      {'name': stage.name, 'evaluations': evaluations, 'flops': flops}
    )
  return costs


def steps_and_evaluations(
  stage: cascade.Stage, follower: cascade.Stage | None = None
) -> tuple[int, int]:
  """Returns the steps and the network evaluations of one image of a stage.

  Guidance evaluates the network twice in each evaluation of the sampler, or
  once with its guide.

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
