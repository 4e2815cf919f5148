"""Super-resolves any number of images, in batches, with any method.

  upscale(lowres uint8 [N, h, w, 3], keys=uint32 [N, 2], label=int [N] or None)
    -> uint8 [N, H, W, 3]

Image n depends on its low-res image, its label and its pair of `keys`, which
is (seed, n), and on nothing else. A new method provides only the function
`Upscaler.upscale_batch`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cdm.distributed import device_mesh
from cdm.methods import lowres_conditioning
from cdm.ops import keys as ops_keys
from cdm.ops import pixels, resize
from cdm.sampling import cascade, drawing_cost
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.drawing_stage import jit_batches
from cdm.sampling.one_ahead import one_ahead


@dataclasses.dataclass(frozen=True)
class Upscaler:
  """Super-resolves any number of images, one batch after another.

  Attributes:
    upscale_batch: `(lowres uint8 [B, h, w, 3], keys uint32 [B, 2], label int32
      [B] or None) -> jax.Array uint8 [B, H, W, 3]`, compiled once for each B.
    image_size: H = W of its output.
    lowres: how low-res images are made from originals.
    record: `stage_record.StageRecord` or `named_upscaler.UntrainedRecord`, for
      manifests.
    num_classes: number of classes of its label input; None if it takes no
      label.
    null_class: True if it also takes images without a label.
    mesh: the device mesh that its images are split over; None is one device.
    batch_size: number of images that are super-resolved at once.
    margin: low-res pixels around a pixel on which its image depends; 0 for a
      method that may look at all of them.
    neighbours: `(lowres uint8 [N, h, w, 3]) -> list`, the training images that
      results were taken from; None if results are made.
    programs: compiled programs, which another `Upscaler` may share.
    is_found: `(images uint8 [n, H, W, 3], low-res images uint8 [n, h, w, 3]) ->
      bool [n]`, see `Method.is_found`; None if the method does not search.
    costs: what an image costs in each stage, see `drawing_cost`; None without a
      network.
    canvas: draws pictures of any size; None if the method draws tiles only.
  """

  upscale_batch: Callable[..., jax.Array]
  image_size: int
  lowres: lowres_conditioning.Lowres
  record: Any
  num_classes: int | None = None
  null_class: bool = False
  mesh: jax.sharding.Mesh | None = None
  batch_size: int = 32
  margin: int = 0
  neighbours: Callable[[np.ndarray], list[Any]] | None = None
  programs: dict[Any, Any] = dataclasses.field(default_factory=dict)
  is_found: Callable[[np.ndarray, np.ndarray], jax.Array] | None = None
  costs: Callable[[], list[drawing_cost.StageCost]] | None = None
  canvas: CanvasUpscaler | None = None

  @property
  def lowres_size(self) -> int:
    """h = w of its input."""
    return self.lowres.size

  @property
  def factor(self) -> int:
    """The magnification, H / h."""
    return self.image_size // self.lowres_size

  def __call__(
    self,
    lowres: np.ndarray,
    *,
    keys: np.ndarray,
    label: np.ndarray | None = None,
    on_batch: Callable[[int], object] | None = None,
  ) -> np.ndarray:
    """Super-resolves low-res images.

    All arguments must be the same in every process.

    Args:
      lowres: uint8 [N, h, w, 3].
      keys: uint32 [N, 2], see `ops.keys.seed_pairs`.
      label: int [N] or None; ignored if the method takes no label.
      on_batch: callback that gets the number of images of each finished batch.

    Returns:
      uint8 [N, H, W, 3].
    """
    if self.num_classes is None:
      label = None
    size = self.padded_count(min(self.batch_size, len(lowres)))

    def begin():
      for start in range(0, len(lowres), size):
        part = np.arange(start, min(start + size, len(lowres)))
        filled = np.resize(part, size)
        x = self.upscale_batch(
          lowres[filled],
          keys[filled],
          None if label is None else np.asarray(label, np.int32)[filled],
        )
        yield len(part), x

    outputs = []
    for count, x in one_ahead(begin()):
      outputs.append(device_mesh.fetch(x)[:count])
      if on_batch is not None:
        on_batch(count)
    return np.concatenate(outputs)

  def upscale_rows(
    self, originals: np.ndarray, *, keys: np.ndarray, label: np.ndarray
  ) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Shrinks and super-resolves one batch, of which each process has a part.

    No process holds the whole batch on its host.

    Args:
      originals: uint8 [b, H, W, 3], the rows that `device_mesh.local_rows`
        assigns to this process, of a batch that divides over the mesh.
      keys: uint32 [b, 2], see `ops.keys.seed_pairs`.
      label: int [b]; ignored if the method takes no label.

    Returns:
      [(number of the row in the batch, low-res image uint8 [h, w, 3], result
      uint8 [H, W, 3]), ...]; each row in one process.
    """
    given: Any = originals, keys, np.asarray(label, np.int32)
    images, keys, labels = self._on_devices(given)
    low = self._shrink_batch(images)
    takes_label = self.num_classes is not None
    x = self.upscale_batch(low, keys, labels if takes_label else None)
    low_of = dict(device_mesh.local_images(low))
    return [(row, low_of[row], y) for row, y in device_mesh.local_images(x)]

  def local_rows(self, size: int) -> np.ndarray:
    """Returns the rows of a batch that this process provides, int [b].

    Args:
      size: number of rows of the whole batch, which divides over the mesh.
    """
    if self.mesh is None:
      return np.arange(size)
    return device_mesh.local_rows(self.mesh, size)

  def shrink_rows(self, originals: np.ndarray) -> np.ndarray:
    """Shrinks this process's rows of a batch, see `upscale_rows`.

    Args:
      originals: uint8 [b, H, W, 3].

    Returns:
      uint8 [b, h, w, 3].
    """
    return device_mesh.local_part(
      self._shrink_batch(self._on_devices(originals))
    )

  def start_rows(
    self, lowres: np.ndarray, *, keys: np.ndarray, label: np.ndarray | None
  ) -> jax.Array:
    """Begins to super-resolve this process's rows of a batch.

    Args:
      lowres: uint8 [b, h, w, 3], the rows that `local_rows` names.
      keys: uint32 [b, 2], see `ops.keys.seed_pairs`.
      label: int [b] or None; ignored if the method takes no label.

    Returns:
      uint8 [B, H, W, 3], the whole batch, of which `device_mesh.local_images`
      returns the rows that this process holds.
    """
    labels = None
    if label is not None and self.num_classes is not None:
      labels = self._on_devices(np.asarray(label, np.int32))
    lowres, keys = self._on_devices((lowres, keys))
    return self.upscale_batch(lowres, keys, labels)

  def _on_devices(self, rows: Any) -> Any:
    if self.mesh is None:
      return rows
    return device_mesh.shard_batch(rows, self.mesh)

  def shrink(self, originals: np.ndarray) -> np.ndarray:
    """Makes low-res images from originals in the same way as training does.

    Args:
      originals: uint8 [N, H, W, 3].

    Returns:
      uint8 [N, h, w, 3].
    """
    filled = np.arange(self.padded_count(len(originals))) % len(originals)
    small = device_mesh.fetch(self._shrink_batch(originals[filled]))
    return small[: len(originals)]

  @property
  def _shrink_batch(self) -> Callable[[np.ndarray], jax.Array]:
    def shrink_batch(originals):
      x_0 = pixels.to_float(device_mesh.split_batch(originals, self.mesh))
      return pixels.to_uint8(lowres_conditioning.downsample(x_0, self.lowres))

    key = ('shrink', self.lowres, self.mesh)
    if key not in self.programs:
      self.programs[key] = jit_batches(shrink_batch, self.mesh)
    return self.programs[key]

  def padded_count(self, count: int) -> int:
    """Returns the size of the batch that `count` images are padded to.

    It is a power of two or the batch size where possible, so that few shapes
    are compiled, and a multiple of the number of batch shards of the mesh.
    """
    size = min(max(self.batch_size, count), 1 << (count - 1).bit_length())
    return (
      size
      if self.mesh is None
      else device_mesh.padded_batch_size(size, self.mesh)
    )


def jit_upscaling(
  stage: cascade.Stage, programs: dict[Any, Any] | None = None
) -> Callable[..., jax.Array]:
  """Compiles the drawing of a super-resolution stage.

  Args:
    stage: `cascade.Stage` with a low-res input; of its parameters only shapes
      and shardings are used.
    programs: the programs of earlier calls, see `cascade.sampler`.

  Returns:
    `draw(params, lowres, keys, label)`; for the last three and the result, see
    `Upscaler.upscale_batch`.
  """
  programs = {} if programs is None else programs
  key = ('upscale', object() if stage.program is None else stage.program)
  if key not in programs:
    programs[key] = _jit_program(stage.without_params())
  program, settings = programs[key], cascade.settings_of(stage)

  def draw(params, lowres, keys, label):
    return program(params, settings, lowres, keys, label)

  return draw


def _jit_program(stage):
  """Compiles `draw(params, settings, lowres, keys, label)` of a stage."""

  @stage.jit
  def draw(params, settings, lowres, keys, label):
    keys = ops_keys.stage_keys(ops_keys.pairs_to_keys(keys), 0)
    lowres, keys, label = stage.split((lowres, keys, label))
    x = cascade.super_resolve(
      stage,
      stage.boxed(params),
      pixels.to_float(lowres),
      keys=keys,
      label=label,
      settings=settings,
    )
    return pixels.to_uint8(x)

  return draw


def stage_upscaler(
  stage: cascade.Stage,
  record: Any,
  *,
  batch_size: int,
  programs: dict[Any, Any] | None = None,
) -> Upscaler:
  """Makes an `Upscaler` that draws with a diffusion stage.

  Args:
    stage: `cascade.Stage` with a low-res input.
    record, batch_size, programs: see `Upscaler`.
  """
  assert stage.lowres is not None
  programs = {} if programs is None else programs
  draw = jit_upscaling(stage, programs)
  if not stage.is_rgb:
    draw = functools.partial(_refused, stage)
  canvas = None
  if stage.canvas is not None:
    canvas = CanvasUpscaler.of(stage, batch_size=batch_size, programs=programs)
  return Upscaler(
    upscale_batch=functools.partial(draw, stage.params),
    image_size=stage.image_size,
    lowres=stage.lowres,
    record=record,
    num_classes=stage.num_classes,
    null_class=stage.null_class,
    mesh=stage.mesh,
    batch_size=batch_size,
    margin=stage.margin,
    programs=programs,
    is_found=_of_uint8(stage.is_found),
    costs=functools.partial(drawing_cost.of_stages, [stage]),
    canvas=canvas,
  )


def _refused(stage, *given):
  """Stands in for the drawing of images uint8, which such a stage has not."""
  del given
  cascade.refuse_others(stage)


def _of_uint8(is_found):
  """Returns a compiled `Method.is_found` that takes uint8 images."""
  if is_found is None:
    return None

  @jax.jit
  def of_uint8(images, lowres):
    return is_found(pixels.to_float(images), pixels.to_float(lowres))

  return of_uint8


def bicubic(image: np.ndarray, upscaler: Upscaler) -> np.ndarray:
  """Interpolates a low-res image, the baseline that super-resolution must beat.

  Args:
    image: uint8 [h, w, 3].
    upscaler: gives the size of the result.

  Returns:
    uint8 [H, W, 3].
  """
  x = resize.resize(
    pixels.to_float(image[None]), upscaler.image_size, method='bicubic'
  )
  return np.asarray(pixels.to_uint8(x))[0]
