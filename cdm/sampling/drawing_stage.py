"""Holds a trained stage that is ready to draw, and compiles its programs."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from cdm.distributed import compiler_options, device_mesh
from cdm.methods import lowres_conditioning
from cdm.methods.canvas_drawing import CanvasDrawing


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
    stops: True if it can stop at a noise level; a method without a schedule
      has none.
    margin: see `config.built_stage.Stage`.
    mesh: the device mesh that its images are split over; None is one device.
    tune: `Method.tune`; None if sampling has no settings that can change
      without compiling anew.
    program: a text that is equal for stages which differ only in parameters and
      in the settings of `settings_of`, so that they share a compiled program;
      None shares none.
    boxes: `config.built_stage.Stage.boxes` of the parameters; None if no
      parameter is split.
    is_found: `Method.is_found`; None if the method does not search.
    trace: `config.built_stage.Stage.trace`; None for a stage that was not built
      from a config.
    guide_trace: the same of the weaker network that guides it; None if none
      does.
    evaluations: how often drawing one image evaluates the network, unless it
      stops or starts at a noise level; see `drawing_cost`.
    start_level: None, or the level in (0, 1] at which drawing begins, at a
      noised image: the enlarged low-res one, or that of `starts`.
    starts: `(indices int [B]) -> uint8 [B, H, W, 3]`, the images that a base
      model begins at; None without a start level.
    canvas: `Method.canvas`; None if the method draws no pictures of any size.
    channels: C of its images.
    is_array, values: see `config.built_stage.Stage`.
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
  stops: bool = True
  margin: int = 0
  mesh: jax.sharding.Mesh | None = None
  tune: Callable[..., Any] | None = None
  program: str | None = None
  boxes: Callable[[Any], Any] | None = None
  is_found: Callable[[jax.Array, jax.Array], jax.Array] | None = None
  trace: Callable[[], tuple[dict, int]] | None = None
  guide_trace: Callable[[], tuple[dict, int]] | None = None
  evaluations: int = 1
  start_level: float | None = None
  starts: Callable[[np.ndarray], np.ndarray] | None = None
  canvas: CanvasDrawing | None = None
  channels: int = 3
  is_array: bool = False
  values: tuple[float, float] | None = None

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
      built: `config.built_stage.Stage` whose method draws images.
      params: the EMA parameters, or their shapes, as `built.prepared` returns
        them.
      mesh, name, level, truncated: see the class.
    """
    splits = mesh is not None and built.method.prepare is None
    return cls(
      name=name,
      image_size=built.input_size,
      sample=built.method.sample,
      params=params,
      lowres=built.lowres,
      level=level,
      truncated=truncated,
      num_classes=built.net.num_classes,
      null_class=built.net.null_class,
      residual=built.is_residual,
      stops=built.schedule is not None,
      margin=built.margin,
      mesh=mesh,
      tune=built.method.tune,
      boxes=built.boxes(params) if splits else None,
      is_found=built.method.is_found,
      trace=built.trace,
      evaluations=built.evaluations,
      canvas=built.method.canvas,
      channels=built.channels,
      is_array=built.is_array,
      values=built.values,
    )

  @property
  def is_rgb(self) -> bool:
    """Whether its images are RGB images of 8 bits."""
    return self.channels == 3 and not self.is_array

  def split(self, tree: Any) -> Any:
    """Splits arrays [B, ...] over the mesh; for use inside jit."""
    return device_mesh.split_batch(tree, self.mesh)

  def boxed(self, params: Any) -> Any:
    """Lets the network gather split parameters layer by layer; inside jit."""
    if self.mesh is None or self.boxes is None:
      return params
    return self.boxes(params)

  def without_params(self) -> Self:
    """Returns the stage with shapes and shardings in the place of parameters.

    A program that later settings share then keeps none of them in memory.
    """
    if self.program is None:
      return self
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
      self.params,
    )
    return self._replace(params=shapes)

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
    options = compiler_options.for_devices(jax.devices())
    return jax.jit(function, compiler_options=options)
  return jax.jit(
    device_mesh.in_mesh(function, mesh),
    out_shardings=device_mesh.batch_sharding(mesh),
    compiler_options=compiler_options.for_devices(mesh.devices.flat),
  )
