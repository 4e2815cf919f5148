"""Binds the denoiser that a sampler runs: guided, as its section says.

A network is guided away from its own null class [CFG], or away from a weaker
network [Autoguidance], which `sampler.guide` names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.diffusion import guidance
from cdm.diffusion.parameterization import Denoiser
from cdm.methods import paired_call, parameter_cast
from cdm.methods.diffusion_options import Tuned


class Conditions(NamedTuple):
  """What a network knows of the images that it draws.

  Attributes:
    label: int32 [B]; None means the null class.
    upsampled: [B, H, W, 3], the enlarged low-res image; None for a base model.
    level: [B], the augmentation level of `upsampled`.
  """

  label: jax.Array | None
  upsampled: jax.Array | None
  level: jax.Array


# (Conditions) -> denoiser of a network that guides another.
Weak = Callable[[Conditions], Denoiser]


class Guided(NamedTuple):
  """Parameters of a network, with the network that guides it.

  Attributes:
    params: tree of arrays.
    weak: binds the denoiser of the other network.
  """

  params: Any
  weak: Weak


def split(params: Any) -> tuple[Any, Weak | None]:
  """Returns the parameters, and the network that guides, None without one."""
  return params if isinstance(params, Guided) else (params, None)


def guided(
  model: Any,
  params: dict,
  conditions: Conditions,
  *,
  tuned: Tuned | None,
  weak: Weak | None,
) -> Denoiser:
  """Returns the denoiser of a model, guided if its `sampling` asks for it.

  Args:
    model: a `diffusion.Diffusion`.
    params: its parameters, in the dtypes of computation.
    conditions: what is known of the images.
    tuned: see `Diffusion.sample`.
    weak: the network that guides, where the sampler names a guide.

  Raises:
    ValueError: the sampler names a guide, and none is given.
  """
  sampling = model.sampling
  labelled = _with_null(conditions, model.net)

  def bind(**given):
    return model.denoiser(params, **given)

  # Whether there is guidance at all is decided by `sampling`.
  if not sampling.guidance_weight:
    return bind(**labelled._asdict())
  how = _how(sampling, tuned)
  if sampling.guide:
    if weak is None:
      raise ValueError(
        f'sampler.guide is {sampling.guide!r}, but only images of a finished '
        'checkpoint can be guided by another one, and these are not; use '
        "--config.sampler.guide='' with --config.sampler.guidance_weight=0."
      )
    return guidance.autoguidance(
      bind(**labelled._asdict()), weak(conditions), **how
    )
  unlabelled = _with_null(conditions._replace(label=None), model.net)
  both = None
  if paired_call.is_better(conditions.level.shape[0], model.image_size**2):
    both = paired_call.paired(bind, labelled._asdict(), null=unlabelled.label)
  return guidance.classifier_free(
    bind(**labelled._asdict()), bind(**unlabelled._asdict()), both=both, **how
  )


def drawing(
  model: Any,
  params: Any,
  conditions: Conditions,
  *,
  lowres: jax.Array | None,
  tuned: Tuned | None,
) -> Denoiser:
  """Returns the denoiser that a sampler runs: guided, clipped and projected.

  Args:
    model: a `diffusion.Diffusion`.
    params: its parameters, in a `Guided` where the sampler names a guide.
    conditions: what is known of the images.
    lowres: [B, h, w, 3], the low-res images, augmented; None for a base model.
    tuned: see `Diffusion.sample`.

  Raises:
    ValueError: see `guided`.
  """
  params, weak = split(params)
  params = parameter_cast.cast(params, model.net.parameter_dtype)
  denoise = guided(model, params, conditions, tuned=tuned, weak=weak)
  clipped = model.clipped(denoise, conditions.upsampled)
  return model.projected(
    clipped, lowres, conditions.upsampled, conditions.level
  )


def guiding(model: Any, params: dict, conditions: Conditions) -> Denoiser:
  """Returns the denoiser of a model whose images are not drawn.

  Args:
    model: a `diffusion.Diffusion`, which guides another.
    params: its parameters.
    conditions: what is known of the images.

  Raises:
    ValueError: it has classes without a null class, and gets no label.
  """
  check_label(model.net, conditions.label)
  params = parameter_cast.cast(params, model.net.parameter_dtype)
  return model.denoiser(params, **_with_null(conditions, model.net)._asdict())


def check_label(net: Any, label: jax.Array | None) -> None:
  """Raises ValueError if a network of classes has neither label nor null class.

  It would look beyond its table of labels.
  """
  classes = net.num_classes
  if label is None and classes is not None and not net.null_class:
    raise ValueError(
      f'The network has {classes} classes and no null class, but label is '
      f'None; give int32 [B] labels from 0 to {classes - 1}.'
    )


def _with_null(conditions, net):
  """Returns conditions whose label is the null class if there was none."""
  if conditions.label is not None:
    return conditions
  n = conditions.level.shape[0]
  return conditions._replace(label=jnp.full(n, net.num_classes or 0, jnp.int32))


def _how(sampling, tuned):
  """Returns the arguments of `guidance.classifier_free` by name."""
  given = sampling if tuned is None else tuned
  return {
    'weight': given.guidance_weight,
    'interval': given.guidance_interval,
    # A rescaling of 0 is another program.
    'rescale': given.guidance_rescale if sampling.guidance_rescale else 0.0,
  }
