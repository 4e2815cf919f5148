"""Defines what a config of one stage becomes: its network and its method."""

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from cdm.config import loader, value_types
from cdm.data import transforms
from cdm.diffusion import schedules
from cdm.distributed import device_mesh, parameter_gather
from cdm.methods import classification
from cdm.methods.base import Method
from cdm.methods.lowres_conditioning import Lowres
from cdm.models import flops

RGB, MOST_CHANNELS = 3, 1024
ARRAYS = 'arrays'  # the kind of data of arrays


class Stage(NamedTuple):
  """The network and the method that one config describes, without parameters.

  Attributes:
    config: config of the stage.
    net: the network, a Flax module with `num_classes`, `null_class` and
      `parameter_dtype`.
    objective: the object that the `method` section describes.
    method: the pure functions of the method.
    summary: {label: value} for people, of what the method does.
    schedule: noise schedule of training; None if the method has none.
    lowres: how the low-res input is made; None for a method without one.
    input_size: H = W of the images that the network receives.
    evaluations: how often drawing one image evaluates the network.
    turns: iterations of the loop that does so; None if it has loops inside it,
      whose work `cdm plan` cannot count.
    is_residual: True if the network draws a residual rather than the image.
    margin: low-res pixels around a pixel on which its image depends, in a
      diffusion model once for each evaluation of the network; 0 for a method
      that may look at all of them.
    is_sum: whether the loss of an example depends on that example alone.
    drawing: what images are drawn with, for records, if the config has no
      section `sampler`: a kind, and the keys of `method` that only drawing
      reads.
    tester: functions that test a classifier; None for any other method.
    traced: see `trace`; None traces a network of `models.flops.trace`.
    loss_passes: how often the loss of an image evaluates the network.
    trained_passes: in how many of these it is differentiated.
    channels: C of the images.
    is_array: whether it is trained on arrays of floating point numbers in
      [-1, 1], not on images uint8.
  """

  config: ConfigDict
  net: Any
  objective: Any
  method: Method
  summary: Mapping[str, Any]
  schedule: schedules.Schedule | None = None
  lowres: Lowres | None = None
  input_size: int = 0
  evaluations: int = 1
  turns: int | None = 1
  is_residual: bool = False
  margin: int = 0
  is_sum: bool = True
  drawing: Mapping[str, Any] = types.MappingProxyType({})
  tester: classification.Tester | None = None
  traced: Callable[[], tuple[dict, int]] | None = None
  loss_passes: int = 1
  trained_passes: int = 1
  channels: int = 3
  is_array: bool = False

  @property
  def values(self) -> tuple[float, float] | None:
    """The values of training arrays that are -1 and 1, if they are stated."""
    found = self.config.train_data.get('range') if self.is_array else None
    return None if found is None else (float(found[0]), float(found[1]))

  @property
  def training_passes(self) -> int:
    """The work of a training step for an image, in forward passes.

    A backward pass counts as two.
    """
    return self.loss_passes + 2 * self.trained_passes

  @property
  def drawn_with(self) -> Mapping[str, Any]:
    """The section `sampler` of the config, or what is in its place."""
    section = self.config.get('sampler')
    return self.drawing if section is None else section

  def compiled_settings(self, sampler: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that are compiled into the program that draws.

    Of the sampler that is everything but the grid and the numbers of guidance;
    but guidance with weight 0, without an interval or without rescaling is
    another program. Of what is in the place of a sampler it is nothing, if
    `Method.tune` makes arguments of it.

    Args:
      sampler: the section that the stage draws with, of plain values.
    """
    plain = loader.plain(self.config)
    if self.drawing and self.method.tune is not None:
      method = plain['method'].items()
      kept = {k: v for k, v in method if k == 'kind' or k not in self.drawing}
      return {**plain, 'method': kept}
    compiled = {k: v for k, v in sampler.items() if k != 'grid'}
    for key in ('guidance_weight', 'guidance_interval', 'guidance_rescale'):
      compiled[key] = bool(compiled.get(key))
    return {**plain, 'sampler': compiled}

  @property
  def layerwise_loss(self) -> parameter_gather.LayerwiseLoss | None:
    """The loss of the method, for the training step; None if it has none."""
    if self.method.loss is None:
      return None
    return parameter_gather.LayerwiseLoss(
      self.method.loss, self.net.parameter_dtype, is_sum=self.is_sum
    )

  def boxes(self, params: Any) -> Callable[[Any], Any]:
    """Returns a function that boxes parameters, see `parameter_gather.box`.

    Args:
      params: the parameters, or their shapes, with their shardings.
    """
    places = jax.tree.map(lambda leaf: leaf.sharding, params)
    return functools.partial(
      parameter_gather.box, places=places, dtype_of=self.net.parameter_dtype
    )

  @property
  def sample_in_training(self) -> Callable[..., jax.Array] | None:
    """`Method.sample` that takes the parameters as training has them."""
    sample, prepare = self.method.sample, self.method.prepare
    if sample is None or prepare is None:
      return sample

    def prepared(params, **given):
      return sample(prepare(parameter_gather.gather(params)), **given)

    return prepared

  def prepared(self, params: Any, mesh: jax.sharding.Mesh) -> Any:
    """Returns what images are drawn with, see `Method.prepare`.

    Args:
      params: trained parameters, or their shapes.
      mesh: the mesh of their shardings.

    Returns:
      Arrays, whole on every device; or their shapes.
    """
    if self.method.prepare is None:
      return params
    place = device_mesh.replicated(mesh)
    if isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct):
      return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        jax.eval_shape(self.method.prepare, params),
      )
    return jax.jit(self.method.prepare, out_shardings=place)(params)

  def trace(self) -> tuple[dict, int]:
    """Returns what `cdm describe` counts, without allocating anything.

    Returns:
      (abstract parameters in the order in which the network uses its modules,
      FLOPs of one evaluation of the network on one image).
    """
    if self.traced is not None:
      return self.traced()
    return flops.trace(self.net, self.input_size, self.lowres is not None)


def image_size(c: ConfigDict) -> int:
  """Returns `c.pipeline.image_size`; raises ValueError unless it is a size."""
  if 'image_size' not in c.pipeline:
    raise ValueError('config.pipeline.image_size is missing; define it.')
  size = c.pipeline.image_size
  value_types.check('pipeline.image_size', size, int)
  if not 1 <= size <= transforms.MOST_PIXELS:
    raise ValueError(
      f'config.pipeline.image_size is {size}; it must be from 1 to '
      f'{transforms.MOST_PIXELS}.'
    )
  return size


def channels(c: ConfigDict) -> int:
  """Returns the channels of the images, `c.pipeline.channels` or 3.

  Raises:
    ValueError: it is no number of channels.
  """
  value = c.pipeline.get('channels', RGB)
  value_types.check('pipeline.channels', value, int)
  if not 1 <= value <= MOST_CHANNELS:
    raise ValueError(
      f'config.pipeline.channels is {value}; it must be from 1 to '
      f'{MOST_CHANNELS}.'
    )
  return value


def is_array(c: ConfigDict) -> bool:
  """Returns whether a stage is trained on arrays, see `Stage`."""
  section = c.get('train_data')
  return section is not None and section.get('kind') == ARRAYS


def refuse_others(c: ConfigDict, use: str) -> None:
  """Raises ValueError unless a config is of RGB images of 8 bits.

  Args:
    c: config of a stage.
    use: what it would be used for, e.g. 'used for bicubic'.
  """
  count, arrays = channels(c), is_array(c)
  if count != RGB or arrays:
    what = 'arrays' if arrays else 'images'
    raise ValueError(
      f'{c.name!r} is of {what} of {count} channel(s), and cannot be {use}, '
      'which takes RGB images of 8 bits; training itself scores such images '
      '(eval.num_pairs), and `cdm upscale` enlarges arrays.'
    )


def check_magnification(small: int, large: int) -> None:
  """Raises ValueError unless the low-res size divides the image size."""
  if not 0 < small <= large or large % small:
    raise ValueError(
      f'config.lowres.size is {small}, which does not divide '
      f'config.pipeline.image_size = {large}; every low-res pixel must become '
      'a whole number of pixels.'
    )
