"""Draws images with a cascade: each stage super-resolves the one before.

  z ~ stage 1;  z_s ~ q(z_s | z);  x ~ stage 2 given z_s and s  [CDM] alg. 2

Image n of a run depends on (seed, n) only: its key is folded from the seed, and
its key in each stage is folded from that key. It does not depend on the batch
that it is drawn in.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from cdm.distributed import compiler_options, device_mesh
from cdm.methods import lowres_conditioning
from cdm.ops import pixels
from cdm.ops.keys import image_keys, stage_keys

# Folded into an image's key to draw augmentation noise. The method folds in 0
# and 1.
AUGMENT = 2


class Stage(NamedTuple):
  """One trained stage of a cascade, ready to draw images.

  Attributes:
    name: name of the stage and of the folder of its images.
    image_size: H = W of its output.
    sample: `Method.sample`, a function that takes the parameters first.
    params: the EMA parameters, or their shapes.
    lowres: how its low-res input is made; None for a base model.
    level: augmentation level in [0, 1] of its low-res input in sampling.
    truncated: True if the previous stage stops at `level` ([CDM] sec. 3.2);
      False if that stage runs to the end and its image is noised again.
    num_classes: number of classes of its label input; None if it takes no
      label.
    null_class: True if it also takes images without a label.
    residual: True if it diffuses a residual rather than the image.
    mesh: the device mesh that its images are split over; None is one device.
    boxes: `config.stage.Stage.boxes` of the parameters; None if no parameter is
      split.
  """

  name: str
  image_size: int
  sample: Callable[..., jax.Array]
  params: Any
  lowres: lowres_conditioning.Lowres | None = None
  level: float = 0.0
  truncated: bool = False
  num_classes: int | None = None
  null_class: bool = False
  residual: bool = False
  mesh: jax.sharding.Mesh | None = None
  boxes: Callable[[Any], Any] | None = None

  @classmethod
  def of(
    cls,
    built: Any,
    params: Any,
    mesh: jax.sharding.Mesh | None,
    *,
    name: str,
    level: float = 0.0,
    truncated: bool = False,
  ) -> Self:
    """Makes a stage from the network and method that its config describes.

    Args:
      built: `config.stage.Stage` of a diffusion model.
      params: the EMA parameters, or their shapes.
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
      boxes=None if mesh is None else built.boxes(params),
    )

  def split(self, tree: Any) -> Any:
    """Splits arrays [B, ...] over the mesh; for use inside jit."""
    return device_mesh.split_batch(tree, self.mesh)

  def boxed(self, params: Any) -> Any:
    """Lets the network gather split parameters layer by layer; inside jit."""
    if self.mesh is None or self.boxes is None:
      return params
    return self.boxes(params)

  def jit(self, function: Callable[..., Any]) -> Any:
    """Compiles a function whose results [B, ...] stay split over the mesh."""
    return jit_batches(function, self.mesh)


def jit_batches(
  function: Callable[..., Any], mesh: jax.sharding.Mesh | None
) -> Any:
  """Compiles a function whose results are batches that stay split over a mesh.

  Args:
    function: function that returns a tree of arrays [B, ...].
    mesh: the device mesh; None is one device.
  """
  if mesh is None:
    options = compiler_options.forward(jax.devices())
    return jax.jit(function, compiler_options=options)
  return jax.jit(
    function,
    out_shardings=device_mesh.batch_sharding(mesh),
    compiler_options=compiler_options.forward(mesh.devices.flat),
  )


def check(stages: Sequence[Stage]) -> None:
  """Raises ValueError, naming the stages, if they do not form a cascade."""
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


def check_level(stage: Stage) -> None:
  """Raises ValueError if the stage was not trained on its sampling level.

  Args:
    stage: `Stage` with a low-res input.
  """
  assert stage.lowres is not None
  if not 0.0 <= stage.level <= 1.0:
    raise ValueError(
      f'Stage {stage.name!r} has augmentation level {stage.level}; a level is '
      'a fraction of the diffusion time, between 0 and 1.'
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
  stage: Stage,
  params: Any,
  z_0: jax.Array,
  *,
  keys: jax.Array,
  label: jax.Array | None,
  augmented: bool = False,
  stop_logsnr: float | None = None,
) -> jax.Array:
  """Adds noise of the stage's level to low-res images and super-resolves them.

  Args:
    stage: `Stage` with a low-res input.
    params: its parameters (an argument, so that the caller may jit this).
    z_0: [B, h, w, 3] float32, clean in [-1, 1], or z_s if `augmented`.
    keys: [B] keys of the stage, one per image.
    label: int32 [B] or None.
    augmented: True if z_0 is z_s already (truncated sampling).
    stop_logsnr: log-SNR at which sampling stops; None runs to x_0. The stage
      before a truncated one stops early.

  Returns:
    [B, H, W, 3] float32 in [-1, 1].
  """
  assert stage.lowres is not None
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


def sampler(
  stages: Sequence[Stage],
) -> Callable[..., list[jax.Array]]:
  """Returns a function that draws a batch of images with a cascade.

  Every stage is compiled once. Between stages the images pass through uint8, as
  they did in training. A stage before a truncated one stops early: its returned
  image is z_s, clipped.

  Args:
    stages: the stages in their order, the base model first.

  Returns:
    `draw(seed, indices int [B], label int32 [B] or None, params)`, which
    returns the images of every stage, uint8 [B, H, W, 3], split over the
    stages' mesh. B must divide over the mesh, and the arguments must be the
    same in every process. `params` is a list with the parameters of every
    stage, in the place of those in `stages`; by default it is left out.

  Raises:
    ValueError: the stages do not form a cascade.
  """
  check(stages)
  runs = [_jit_stage(stages, i) for i in range(len(stages))]

  def draw(seed, indices, label, params=None):
    images, z = [], None
    indices = np.asarray(indices, np.uint32)
    if params is None:
      params = [stage.params for stage in stages]
    for given, run in zip(params, runs, strict=True):
      z, image = run(given, np.uint32(seed), indices, label, z)
      images.append(image)
    return images

  return draw


def _jit_stage(
  stages: Sequence[Stage], i: int
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Compiles stage i of a cascade.

  Returns:
    `run(params, seed, indices, label, z) -> (input of the next stage float32,
    image uint8)`, both [B, H, W, 3]; z is None for the first stage.
  """
  stage = stages[i]
  follower = stages[i + 1] if i + 1 < len(stages) else None
  stop_logsnr = None
  if follower is not None and follower.truncated and follower.level:
    assert follower.lowres is not None, 'a later stage has a low-res input'
    stop_logsnr = float(
      lowres_conditioning.level_logsnr(
        np.float64(follower.level), follower.lowres
      )
    )

  @stage.jit
  def run(params, seed, indices, label, z):
    keys, label = stage.split((stage_keys(image_keys(seed, indices), i), label))
    params = stage.boxed(params)
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
    image = pixels.to_uint8(x)
    if stop_logsnr is None:
      x = pixels.to_float(image)
    return x, image

  return run
