"""Builds a stage that is a student: it learns the steps of a teacher."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from cdm.config import (
  built_stage,
  diffusion_stage,
  instantiate,
  key_errors,
  sampler_section,
)
from cdm.diffusion import samplers
from cdm.methods import consistency_distillation as consistency
from cdm.methods import few_steps
from cdm.methods import progressive_distillation as progressive
from cdm.methods.base import Method
from cdm.methods.diffusion import Diffusion
from cdm.methods.diffusion_options import Sampling

# The kinds of `method` that learn from a teacher.
KINDS = ('progressive_distillation', 'consistency_distillation')
# Keys of `method` that a run keeps from its first start to its end.
FIXED = ('num_steps', 'teacher_guidance')
# Keys of the objective that a student has; the others are of other losses.
OBJECTIVE = (
  'prediction',
  'target',
  'weighting',
  'residual_scale',
  'label_dropout',
)


def progressive_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config with method.kind='progressive_distillation'.

  Args:
    c: ConfigDict of the stage. The teacher need not be there: it is read when a
      run begins.
    chosen: the sampler that it draws with.
  """

  def make(student, teacher, options):
    return progressive.progressive_distillation(
      student, teacher, options.num_steps
    )

  kind = _Kind(progressive.ProgressiveOptions, make, teacher=2, student=0)
  return _stage(c, chosen, kind)


def consistency_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config with method.kind='consistency_distillation'.

  Args:
    c, chosen: see `progressive_stage`.
  """
  make = consistency.consistency_distillation
  kind = _Kind(consistency.ConsistencyOptions, make, teacher=1, student=1)
  return _stage(c, chosen, kind)


class _Kind(NamedTuple):
  """A way of learning from a teacher.

  Attributes:
    options: the class of its keys of `method`.
    make: (student, teacher, options) -> Method.
    teacher, student: evaluations of both without a gradient in a training step.
  """

  options: Callable[..., Any]
  make: Callable[..., Method]
  teacher: int
  student: int


def _stage(c, chosen, kind):
  own = dict(c.method)
  del own['kind']
  section = {key: own.pop(key) for key in OBJECTIVE if key in own}
  options = instantiate.splat('method', kind.options, own)
  sampling = teacher_sampling(options)

  def check(objective):
    few_steps.check_objective(objective, c.method.kind)
    few_steps.target_of(objective)

  def make(student):
    with key_errors.naming('method', options._fields, otherwise=''):
      return kind.make(student, _teacher(student, sampling), options)

  built = diffusion_stage.diffusion_stage(
    c, chosen, section=section, make=make, check=check
  )
  guided = 2 if sampling.guidance_weight else 1
  return built._replace(
    summary={
      **built.summary,
      'noise levels': 'those of the steps',
      'loss': c.method.kind,
      'steps of the student': options.num_steps,
      'teacher': options.teacher or 'none given',
      'guidance of the teacher': sampling.guidance_weight,
    },
    loss_passes=1 + kind.teacher * guided + kind.student,
  )


def _teacher(student: Diffusion, sampling: Sampling) -> Diffusion:
  """Returns the network of a student, as its teacher draws with it."""
  if sampling.guidance_weight and not student.objective.label_dropout:
    raise ValueError(
      f'The teacher is guided with the weight {sampling.guidance_weight}, but '
      'config.method.label_dropout is 0, so the student would forget the null '
      'class, and could not be a teacher itself. Set it with '
      '--config.method.label_dropout=0.1, or let the teacher step without '
      'guidance with --config.method.teacher_guidance=0.'
    )
  return dataclasses.replace(student, sampling=sampling)


def teacher_sampling(options: Any) -> Sampling:
  """Returns how a teacher denoises: its clipping and its guidance.

  Args:
    options: `teacher_sampler`, the keys of its own sampler, or None for the
      defaults of `Sampling`; and `teacher_guidance`, which replaces the weight.
  """
  fields = options.teacher_sampler or {}
  own: dict[str, Any] = instantiate.arguments(
    'method.teacher_sampler', Sampling, fields, {'run': None, 'grid': None}
  )
  if options.teacher_guidance is not None:
    own['guidance_weight'] = float(options.teacher_guidance)
    if not own['guidance_weight']:
      own['guidance_rescale'] = 0.0
  if own.get('guide') and own.get('guidance_weight'):
    raise ValueError(
      f'The teacher is guided by another network, {own["guide"]}, which is not '
      'at hand in training. Let it step without guidance with '
      '--config.method.teacher_guidance=0.'
    )
  own['guide'] = ''
  # Its steps are made elsewhere, two for each step of the student.
  return Sampling(run=samplers.ddim, grid=np.array([np.inf]), **own)


def is_halved(kind: str) -> bool:
  """Returns whether a student of N steps learns from one of 2 N steps."""
  return kind == 'progressive_distillation'


def sampler_fields(section: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the keys of a `sampler` section that say how it denoises."""
  fields = Sampling._fields[2:]
  return {key: section[key] for key in fields if key in section}
