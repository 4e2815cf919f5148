"""Counts what an image costs: network evaluations of every stage, FLOPs."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from cdm.diffusion import guidance, sampler_steps
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
    tuned = cascade.settings_of(stage, follower).tuned
    evaluations, guided = stage.evaluations, 0
    if isinstance(tuned, Tuned):
      evaluations, guided = _evaluations(tuned)
    assert stage.trace is not None
    flops = stage.trace()[1]
    flops_of_guide = flops
    if stage.guide_trace is not None:
      flops_of_guide = stage.guide_trace()[1]
    costs.append(
      {
        'name': stage.name,
        'evaluations': evaluations + guided,
        'flops': evaluations * flops + guided * flops_of_guide,
      }
    )
  return costs


def steps_and_evaluations(stage: cascade.Stage) -> tuple[int, int]:
  """Returns the steps and the network evaluations of one image of a stage.

  Where guidance acts, an evaluation of the sampler is two of the network, or
  one of the network and one of its guide.

  Args:
    stage: the stage, which may start at a noise level.
  """
  tuned = cascade.settings_of(stage).tuned
  if not isinstance(tuned, Tuned):
    return stage.evaluations, stage.evaluations
  return int(tuned.steps.count), sum(_evaluations(tuned))


def _evaluations(tuned):
  """Returns how often the sampler and its guidance evaluate a network."""
  levels = sampler_steps.levels_of(tuned.steps)
  if not np.any(tuned.guidance_weight):
    return len(levels), 0
  interval = tuned.guidance_interval
  return len(levels), guidance.guided_evaluations(levels, interval)
