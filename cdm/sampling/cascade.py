"""Chains stages: each image is drawn small, then super-resolved again.

  z ~ stage 1;  z_s ~ q(z_s | z);  x ~ stage 2 given z_s and s  [CDM] alg. 2

Image n of a run depends on (seed, n) only. The key of image n is folded from
the seed, the key of its stage from that; nothing depends on the batch it was
drawn in.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.distributed import compiler_options, device_mesh, partitioning
from cdm.methods import lowres_conditioning
from cdm.ops import pixels
from cdm.ops.keys import image_keys, stage_keys

AUGMENT = 2  # use of an image's key; 0 and 1 belong to the method


class Stage(NamedTuple):
  """One trained stage.

  Attributes:
    name: what its folder of pictures is called.
    image_size: H = W of its output.
    sample: `Method.sample` with the parameters still to come.
    params: the EMA parameters.
    lowres: `lowres_conditioning.Lowres`, None for a base model.
    level: augmentation level in [0, 1] of its low-res input at sampling.
    truncated: the previous stage stops at `level` ([CDM] sec. 3.2) instead of
      running to the end and being noised again.
    num_classes: classes of its label input, None if it takes no label.
    null_class: True if it also takes images without a label.
    residual: True if it diffuses a residual rather than the image.
    mesh: the mesh its images are shared out over; None is one device.
  """

  name: str
  image_size: int
  sample: Callable
  params: object
  lowres: lowres_conditioning.Lowres | None = None
  level: float = 0.0
  truncated: bool = False
  num_classes: int | None = None
  null_class: bool = False
  residual: bool = False
  mesh: jax.sharding.Mesh | None = None

  @classmethod
  def of(cls, built, params, mesh, *, name, level=0.0, truncated=False):
    """Makes a stage of what its config describes.

    Args:
      built: `config.stage.Stage` of the config.
      params: its EMA parameters, or their shapes.
      mesh, name, level, truncated: see the class.
    """
    return cls(
      name=name,
      image_size=built.config.pipeline.image_size,
      sample=built.method.sample,
      params=params,
      lowres=built.lowres,
      level=level,
      truncated=truncated,
      num_classes=built.net.num_classes,
      null_class=built.net.null_class,
      residual=built.objective.residual_scale is not None,
      mesh=mesh,
    )

  def split(self, tree):
    """Inside jit: arrays [B, ...] shared out over the mesh."""
    return device_mesh.split_batch(tree, self.mesh)

  def whole(self, params):
    """Inside jit: parameters as the network uses them."""
    if self.mesh is None:
      return params
    places = jax.tree.map(lambda leaf: leaf.sharding, self.params)
    return partitioning.gather_over_fsdp(params, places)

  def jit(self, function):
    """-> function, compiled; what it gives, [B, ...], stays shared out."""
    return jit_batches(function, self.mesh)


def jit_batches(function, mesh):
  """-> function, compiled; what it gives, [B, ...], is split over the mesh."""
  if mesh is None:
    options = compiler_options.forward(jax.devices())
    return jax.jit(function, compiler_options=options)
  return jax.jit(
    function,
    out_shardings=device_mesh.batch_sharding(mesh),
    compiler_options=compiler_options.forward(mesh.devices.flat),
  )


def check(stages):
  """Raises ValueError, naming both stages, if they do not fit each other."""
  if stages[0].lowres is not None:
    raise ValueError(
      f'Stage {stages[0].name!r} is the first of the cascade but needs a '
      f'{stages[0].lowres.size}-px input; put a base model before it.'
    )
  for before, stage in zip(stages, stages[1:], strict=False):
    if stage.lowres is None:
      raise ValueError(
        f'Stage {stage.name!r} follows {before.name!r} but takes no low-res '
        'input; only the first stage of a cascade is a base model.'
      )
    if before.image_size != stage.lowres.size:
      raise ValueError(
        f'Stage {before.name!r} makes {before.image_size}-px images but '
        f'stage {stage.name!r} takes {stage.lowres.size}-px input; use stages '
        'whose sizes follow each other.'
      )
    check_level(stage)
    if stage.truncated and stage.level and before.residual:
      raise ValueError(
        f'Stage {before.name!r} diffuses a residual, so stopping it early '
        'does not give a noisy image; set truncated=False for stage '
        f'{stage.name!r}.'
      )
  counts = {s.num_classes for s in stages if s.num_classes is not None}
  if len(counts) > 1:
    named = ', '.join(
      f'{s.name}: {s.num_classes}' for s in stages if s.num_classes
    )
    raise ValueError(
      f'The stages disagree about the number of classes ({named}); one label '
      'is given to all of them, so train them on the same labels.'
    )


def check_level(stage):
  """Raises ValueError if the stage was not trained on its sampling level."""
  if not 0.0 <= stage.level <= 1.0:
    raise ValueError(
      f'Stage {stage.name!r} has augmentation level {stage.level}; levels '
      'are fractions of its chain, between 0 and 1.'
    )
  if stage.level and stage.lowres.augment != 'noise':
    raise ValueError(
      f'Stage {stage.name!r} is sampled at augmentation level {stage.level} '
      f'but was trained with augment={stage.lowres.augment!r}; use level 0.'
    )
  if stage.level > stage.lowres.max_level:
    raise ValueError(
      f'Stage {stage.name!r} is sampled at augmentation level {stage.level} '
      f'but was trained on levels up to {stage.lowres.max_level}.'
    )


def super_resolve(
  stage, params, z_0, *, keys, label, augmented=False, stop_logsnr=None
):
  """Draws x_0 given a low-res image, noising it to the stage's level first.

  Args:
    stage: `Stage` with a low-res input.
    params: its parameters (an argument, so that the caller may jit this).
    z_0: [B, h, w, 3] float32, clean in [-1, 1], or z_s if `augmented`.
    keys: [B] keys of the stage, one per image.
    label: int32 [B] or None.
    augmented: z_0 already is z_s (truncated sampling).
    stop_logsnr: end at this log-SNR, not at x_0 (truncated successor).

  Returns:
    [B, H, W, 3] float32 in [-1, 1].
  """
  nearest = lowres_conditioning.nearest_level(stage.level, stage.lowres)
  level = jnp.full(z_0.shape[0], nearest, jnp.float32)
  z = z_0
  if stage.level and not augmented:
    eps = jax.vmap(
      lambda key: jax.random.normal(
        jax.random.fold_in(key, AUGMENT), z_0.shape[1:]
      )
    )(keys)
    z = lowres_conditioning.augment_at(z_0, stage.lowres, level=level, eps=eps)
  return stage.sample(
    params,
    keys=keys,
    label=label if stage.num_classes is not None else None,
    lowres=z,
    level=level,
    stop_logsnr=stop_logsnr,
  )


def sampler(stages):
  """-> draw(seed, indices [B], label int32 [B]) -> [[B, H, W, 3] per stage].

  Every stage is compiled once; between stages the images pass through uint8,
  as they did in training. Of a stage that is cut short for a truncated
  successor the picture returned is z_s, clipped. What comes back are uint8
  jax.Arrays, shared out over the stages' mesh: B must divide over it, and the
  arguments be the same in every process.
  """
  check(stages)
  runs = [_jit_stage(stages, i) for i in range(len(stages))]

  def draw(seed, indices, label):
    pictures, z = [], None
    numbers = np.asarray(indices, np.uint32)
    for stage, run in zip(stages, runs, strict=True):
      z, picture = run(stage.params, np.uint32(seed), numbers, label, z)
      pictures.append(picture)
    return pictures

  return draw


def _jit_stage(stages, i):
  stage = stages[i]
  follower = stages[i + 1] if i + 1 < len(stages) else None
  stop_logsnr = None
  if follower is not None and follower.truncated and follower.level:
    stop_logsnr = float(
      lowres_conditioning.level_logsnr(
        np.float64(follower.level), follower.lowres
      )
    )

  @stage.jit
  def run(params, seed, indices, label, z):
    keys, label = stage.split((stage_keys(image_keys(seed, indices), i), label))
    params = stage.whole(params)
    if stage.lowres is None:
      x = stage.sample(
        params,
        keys=keys,
        label=label if stage.num_classes is not None else None,
        stop_logsnr=stop_logsnr,
      )
    else:
      x = super_resolve(
        stage,
        params,
        z,
        keys=keys,
        label=label,
        augmented=bool(stage.truncated and stage.level),
        stop_logsnr=stop_logsnr,
      )
    picture = pixels.to_uint8(x)
    if stop_logsnr is None:
      x = pixels.to_float(picture)
    return x, picture

  return run
