"""Declares what the training loop calls between steps to draw and evaluate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
  from cdm.training.best_checkpoint import BestCheckpoint

GRID = 'samples'  # name of the image grids


class Evaluator(NamedTuple):
  """One kind of evaluation of held-out images, made at regular steps.

  Attributes:
    name: a scalar that every result has, e.g. 'held_out/loss'. By it the record
      tells whether the evaluation of a step was made.
    every_steps: interval of the evaluations; there is one at the end too. 0
      makes none.
    run: `(params, ema_params, stop_asked) -> {name: number}`, the same in every
      process. `stop_asked()` is a collective, which every process calls equally
      often; if it returns True, `run` may give up and return None. The run then
      saves and ends, and makes the evaluation when it continues.
    forget: removes what an evaluation has kept for that case; every process
      calls it when the numbers are recorded. None if it keeps nothing.
    uses_frozen: whether `run` takes the frozen parameters of the state, if it
      has any, as the keyword `frozen`.
  """

  name: str
  every_steps: int
  run: Callable[..., dict[str, float] | None]
  forget: Callable[[], object] | None = None
  uses_frozen: bool = False


@dataclasses.dataclass(frozen=True)
class Hooks:
  """Functions that the loop calls between steps, unless they are None.

  Attributes:
    draw_samples: ema_params -> uint8 [H, W, 3], or None if there is nothing to
      show; called every sample_every_steps of the schedule, and at the end.
    gauges: (step, rates of a log line) -> further scalars for that line.
    after_line: (step, scalars of a log line), called when it is written.
    first_step: called when the first step is made, which compiles.
    update: (step, train_step, state, batch) -> train_step(state, batch), where
      `step` counts from 1.
    evaluations: the evaluations, made in this order after the grid of a step.
    best: keeps the best of the evaluated checkpoints; None keeps none.
  """

  draw_samples: Callable | None = None
  gauges: Callable[[int, dict], dict] | None = None
  after_line: Callable[[int, dict], object] | None = None
  first_step: Callable[[], object] | None = None
  update: Callable = lambda step, train_step, *args: train_step(*args)
  evaluations: tuple[Evaluator, ...] = ()
  best: BestCheckpoint | None = None
