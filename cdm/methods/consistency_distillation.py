"""Trains a student whose predictions along a path of its teacher agree, [MCM].

  t = (j + 1) / N,  s = j / N,  j uniform over the N steps of the teacher
  e = the end, cleaner than t, of the one of K segments that t is in
  x_s = a step of the teacher from x_t
  x~ = the x_0 whose one step of DDIM from t ends where the step from s ends
       that the student, its gradient stopped, predicts x_0 for
  L = w(logsnr) |x^ - x~|^2                          [MCM] alg. 1, without noise

The student draws in K steps of DDIM, from segment end to segment end. For K = 1
it is a consistency model: each of its predictions is the end of the path. N
grows in training, evenly in its logarithm: first few large steps, then many
small ones. The steps are `grids.trailing` with N, and the ends those with K.

differs: [MCM] recommends steps of the teacher that make up for the variance
that a mean prediction loses (aDDIM); here the teacher steps by DDIM. The error
is squared.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.diffusion import distillation, grids, process
from cdm.methods import few_steps
from cdm.methods.base import Method
from cdm.methods.corruption import draw_batch
from cdm.methods.diffusion import Diffusion


class ConsistencyOptions(NamedTuple):
  """How a student is distilled; keys of the `method` section of a config.

  Attributes:
    num_steps: K, the steps in which the student draws.
    teacher, teacher_guidance, teacher_sampler, teacher_sha256: see
      `progressive_distillation.ProgressiveOptions`.
    first_teacher_steps, last_teacher_steps: N at the first update and from
      `anneal_updates` on, of the whole way; a multiple of K is taken.
    anneal_updates: updates in which N grows from one to the other.
  """

  num_steps: int
  teacher: str = ''
  teacher_guidance: float | None = None
  teacher_sampler: Mapping[str, Any] | None = None
  teacher_sha256: str = ''
  first_teacher_steps: int = 64
  last_teacher_steps: int = 1280
  anneal_updates: int = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class ConsistencyDistillation:
  """A student and its teacher, which have the same network.

  Attributes:
    student, teacher: see `ProgressiveDistillation`.
    options: the numbers of steps.

  Raises:
    ValueError: an option cannot be used.
  """

  student: Diffusion
  teacher: Diffusion
  options: ConsistencyOptions

  def __post_init__(self):
    few_steps.check_objective(
      self.student.objective, 'consistency_distillation'
    )
    few_steps.target_of(self.student.objective)
    check(self.options, self.student.schedule.num_steps)

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
    frozen: dict,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the student's disagreement at one level per example.

    Args:
      params: parameters of the student.
      batch: see `Diffusion.loss`; it may hold `update` [B], the number of
        updates made, without which N is the last one.
      key, train: see `Diffusion.loss`.
      frozen: parameters of the teacher.

    Returns:
      ([B], {'logsnr': [B]}).

    Raises:
      ValueError: the sampler of the student takes other steps.
    """
    schedule, segments = self.student.schedule, self.options.num_steps
    ends = grids.trailing(schedule, num_steps=segments)
    few_steps.check_sampler(self.student.sampling, ends)
    given = self.student.corruption(params, batch, key=key, train=train)
    pair = distillation.neighbours(
      schedule,
      given.u,
      segments=segments,
      per_segment=self._steps_per_segment(batch.get('update')),
    )
    x_t = process.q_sample(given.x_0, given.eps, logsnr=pair.start)
    teacher = self.teacher.drawing_denoiser(
      frozen, given.conditions, x_t.shape[0]
    )
    student = self.student.denoiser(params, **given.conditions, **given.dropout)
    wanted = distillation.consistency_target(teacher, student, x_t, pair)
    objective = self.student.objective
    value = distillation.loss(
      student(x_t, pair.start).x_0,
      wanted,
      logsnr=pair.start,
      target=few_steps.target_of(objective),
      weight=objective.weighting,
    )
    return value, {'logsnr': pair.start}

  def _steps_per_segment(self, update):
    """Returns N / K, an integer, at an update ([B] int32, or None)."""
    first, last = (
      jnp.log(float(steps))
      for steps in (
        self.options.first_teacher_steps,
        self.options.last_teacher_steps,
      )
    )
    share = 1.0
    if update is not None:
      share = jnp.minimum(update / max(self.options.anneal_updates, 1), 1.0)
    steps = jnp.exp(first + share * (last - first))
    # What rounds down to less than it is must not lose a step.
    whole = jnp.floor(steps / self.options.num_steps + 1e-3)
    return whole.astype(jnp.int32)


def consistency_distillation(
  student: Diffusion, teacher: Diffusion, options: ConsistencyOptions
) -> Method:
  """Returns the `Method` of a `ConsistencyDistillation` with these fields."""
  bound = ConsistencyDistillation(student, teacher, options)
  return Method(
    student.init,
    bound.loss,
    student.sample,
    tune=student.tune,
    draw=draw_batch,
    init_frozen=teacher.init,
    canvas=student.canvas,
  )


def check(options: ConsistencyOptions, levels: int) -> None:
  """Raises ValueError, naming the key, if steps do not fit a schedule.

  Args:
    options: the numbers of steps.
    levels: of the schedule.
  """
  segments = options.num_steps
  if not 1 <= segments <= levels:
    raise ValueError(
      f'method.num_steps is {segments}; it must be from 1 to {levels}, the '
      'levels of the schedule.'
    )
  if options.anneal_updates < 0:
    raise ValueError(
      f'method.anneal_updates is {options.anneal_updates}; it must be at '
      'least 0.'
    )
  for name in ('first_teacher_steps', 'last_teacher_steps'):
    steps = getattr(options, name)
    if not segments <= steps <= levels:
      raise ValueError(
        f'method.{name} is {steps}; it must be from method.num_steps = '
        f'{segments} to {levels}, the levels of the schedule.'
      )
