"""Trains a student to do in one step what its teacher does in two, [PD].

  x_t ~ q(x_t | x_0),  t uniform over the N levels where the student steps
  x~ = the x_0 whose one step of DDIM ends where two steps of the teacher end
  L = w(logsnr) |x^ - x~|^2                                        [PD] alg. 2

The student of one run is the teacher of the next, whose student takes half as
many steps: N, N / 2, ..., 1. It has the network, the schedule, the low-res
input and the residual target of its teacher, is given the same conditions, and
draws by DDIM on `grids.trailing`.

The teacher steps as it draws: guided and clipped as its own sampler says.
differs: [PD]'s code does not clip the teacher in training. A student whose
teacher is guided learns the guided steps and draws without guidance; its null
class remains the unguided teacher ([Meng et al. 2023] with one weight).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.diffusion import distillation, process
from cdm.methods import few_steps
from cdm.methods.base import Method
from cdm.methods.corruption import draw_batch
from cdm.methods.diffusion import Diffusion


class ProgressiveOptions(NamedTuple):
  """How a student is distilled; keys of the `method` section of a config.

  Attributes:
    num_steps: N, the steps in which the student draws.
    teacher: work directory of the teacher, or WORKDIR@STEP or WORKDIR@best; ''
      where no student is trained. Its EMA parameters are used.
    teacher_guidance: weight of the guidance with which the teacher steps, w of
      [CFG] eq. 6; None takes that of its own sampler.
    teacher_sampler: the keys of its own sampler that are fields of `Sampling`,
      which a run writes into its config when it begins.
    teacher_sha256: hash of the teacher's checkpoint, which it writes too.
  """

  num_steps: int
  teacher: str = ''
  teacher_guidance: float | None = None
  teacher_sampler: Mapping[str, Any] | None = None
  teacher_sha256: str = ''


@dataclasses.dataclass(frozen=True, eq=False)
class ProgressiveDistillation:
  """A student and its teacher, which have the same network.

  Attributes:
    student: the student; `objective` says how its error is weighted, and its
      sampler takes the steps.
    teacher: the same network with the sampler of the teacher.
    steps: the N steps of the student.

  Raises:
    ValueError: the student cannot be scored.
  """

  student: Diffusion
  teacher: Diffusion
  steps: distillation.Halving

  def __post_init__(self):
    few_steps.check_objective(
      self.student.objective, 'progressive_distillation'
    )
    few_steps.target_of(self.student.objective)

  def loss(
    self,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array,
    train: bool,
    frozen: dict,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the student's error at one of its levels per example.

    Args:
      params: parameters of the student.
      batch, key, train: see `Diffusion.loss`.
      frozen: parameters of the teacher.

    Returns:
      ([B], {'logsnr': [B]}).

    Raises:
      ValueError: the sampler of the student takes other steps.
    """
    few_steps.check_sampler(self.student.sampling, self.steps.grid)
    given = self.student.corruption(params, batch, key=key, train=train)
    step = (given.u * len(self.steps.start)).astype(jnp.int32)  # [B]
    logsnr = jnp.asarray(self.steps.start, given.x_0.dtype)[step]
    x_t = process.q_sample(given.x_0, given.eps, logsnr=logsnr)
    teacher = self.teacher.drawing_denoiser(
      frozen, given.conditions, x_t.shape[0]
    )
    wanted = distillation.progressive_target(teacher, x_t, self.steps, step)
    student = self.student.denoiser(params, **given.conditions, **given.dropout)
    objective = self.student.objective
    value = distillation.loss(
      student(x_t, logsnr).x_0,
      wanted,
      logsnr=logsnr,
      target=few_steps.target_of(objective),
      weight=objective.weighting,
    )
    return value, {'logsnr': logsnr}


def progressive_distillation(
  student: Diffusion, teacher: Diffusion, num_steps: int
) -> Method:
  """Returns the `Method` of a `ProgressiveDistillation`.

  Args:
    student, teacher: see there.
    num_steps: N.

  Raises:
    ValueError: an option cannot be used.
  """
  steps = distillation.halving(student.schedule, num_steps=num_steps)
  bound = ProgressiveDistillation(student, teacher, steps)
  return Method(
    student.init,
    bound.loss,
    student.sample,
    tune=student.tune,
    draw=draw_batch,
    init_frozen=teacher.init,
    canvas=student.canvas,
  )
