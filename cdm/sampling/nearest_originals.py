"""Super-resolves a low-res image by the nearest image of the training data.

The result is the original of the training image whose low-res version is the
nearest, see `methods.nearest_neighbour`. The training images are searched block
by block, each split over the devices.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cdm.config import datasets, loader
from cdm.data import subset, transforms
from cdm.distributed import collectives, device_mesh
from cdm.methods import lowres_conditioning, nearest_neighbour
from cdm.ops import pixels
from cdm.sampling import shrunk_images

# Bytes of a block of low-res images on each device.
BLOCK_BYTES = 32 << 20
MOST_IN_BLOCK = 4096


class Neighbour(NamedTuple):
  """The training image that an image was taken from.

  Attributes:
    index: its index in the training data.
    name: its file name, or what stands for one.
    squared_distance: between the low-res images, over all pixels and colours.
  """

  index: int
  name: str
  squared_distance: int


class NearestOriginals:
  """The training images of a config, to be searched."""

  def __init__(
    self,
    c: loader.ConfigDict,
    lowres: lowres_conditioning.Lowres,
    mesh: jax.sharding.Mesh,
  ):
    """Opens the training data, and shrinks it if that was not done before.

    Args:
      c: config of a stage; its sections `train_data` and `pipeline` count.
      lowres: how low-res images are made.
      mesh: the device mesh.

    Raises:
      ValueError: the data cannot be used.
      OSError: there is no room for the low-res images.
    """
    options = datasets.pipeline_options(c)
    transforms.check_fit(
      size=options.image_size, crop=options.crop, filter=options.filter
    )
    self._source = datasets.open_source(c.train_data, 'train_data')
    datasets.check_images(self._source, options, 'train_data')
    self._mesh = mesh
    # {low-res image: (index, squared distance)} of what was super-resolved, so
    # that asking which images those were searches nothing again.
    self._known: dict[bytes, tuple[int, int]] = {}
    self._fit: dict[str, Any] = {
      'image_size': options.image_size,
      'crop': options.crop,
      'filter': options.filter,
      'min_side': options.least_side,
    }
    shards = device_mesh.num_batch_shards(mesh)
    size = 3 * lowres.size**2
    each = min(MOST_IN_BLOCK, max(1, BLOCK_BYTES // size))
    block = shards * min(each, -(-len(self._source) // shards))
    self._shrunk = shrunk_images.ShrunkImages(
      shrunk_images.Images(
        count=len(self._source),
        read=self._read,
        shrink=_shrink(lowres),
        size=lowres.size,
        depends_on=[
          self._source.fingerprint,
          self._fit,
          lowres.downsample,
        ],
        max_skip_fraction=options.max_skip_fraction,
      ),
      device_mesh.local_rows(mesh, block),
      block,
    )

  @property
  def searched(self) -> dict[str, Any]:
    """What was searched, for manifests."""
    return {
      'images': len(self._source),
      'fingerprint': self._source.fingerprint,
    }

  def _read(self, index: int) -> np.ndarray | None:
    found = subset.read_image(self._source, index, **self._fit)
    return None if found is None else found[0]

  def __call__(
    self, lowres: Any, keys: Any = None, label: Any = None
  ) -> jax.Array:
    """Returns the nearest originals, see `Upscaler.upscale_batch`."""
    del keys, label
    found = self._find(lowres)
    rows = device_mesh.local_rows(self._mesh, len(found.index))
    originals = {i: self._original(i) for i in {*found.index[rows].tolist()}}
    images = np.stack([originals[int(i)] for i in found.index[rows]])
    return device_mesh.shard_batch(images, self._mesh)

  def neighbours(self, lowres: np.ndarray) -> list[Neighbour]:
    """Returns which training images are the nearest of low-res images.

    A collective: every process must call it with the same arguments.

    Args:
      lowres: uint8 [N, h, w, 3].
    """
    if not len(lowres):
      return []
    rows = [row.tobytes() for row in np.asarray(lowres)]
    known = self._known
    if not all(row in known for row in rows):
      searched = self._find(lowres)
      known = {row: _row(searched, i) for i, row in enumerate(rows)}
    names = self._names()
    found = [known[row] for row in rows]
    return [Neighbour(i, names(i), far) for i, far in found]

  def _find(self, lowres):
    """Returns `Nearest` of low-res images, as arrays of the host."""
    shape = lowres.shape
    if not isinstance(lowres, jax.Array):
      lowres = np.asarray(lowres).reshape(shape[0], -1)
    found = nearest_neighbour.Nearest.none(shape[0])
    for first, images, there in self._blocks():
      found = _search(self._mesh)(found, lowres, images, there, np.int32(first))
    found = nearest_neighbour.Nearest(*map(np.asarray, found))
    if collectives.process_count() == 1:  # Of several, each holds its own rows.
      images = np.asarray(lowres)
      self._known |= {x.tobytes(): _row(found, i) for i, x in enumerate(images)}
    if (found.index < 0).any():
      raise ValueError(
        'No image of config.train_data can be used: all are unreadable, or '
        'smaller than config.pipeline takes. Give other training data.'
      )
    return found

  def _blocks(self) -> Iterator[tuple[int, jax.Array, jax.Array]]:
    for first, images, there in self._shrunk.blocks():
      yield first, *device_mesh.shard_batch((images, there), self._mesh)

  def _original(self, index: int) -> np.ndarray:
    image = self._read(index)
    assert image is not None, 'an image that was there is no longer'
    return image

  def _names(self) -> Callable[[int], str]:
    read_names = getattr(self._source, 'file_names', None)
    names: Sequence[str] | None = read_names() if read_names else None
    return lambda i: names[i] if names else f'image {i}'


def _row(found, i) -> tuple[int, int]:
  """Returns (index, squared distance) of one query."""
  return int(found.index[i]), nearest_neighbour.distance(found, i)


@functools.lru_cache(maxsize=4)
def _search(mesh):
  """Compiles the comparison with one block of the training images."""
  whole = device_mesh.replicated(mesh)

  def search(before, lowres, images, there, first):
    queries = lowres.reshape(lowres.shape[0], -1)
    queries = jax.lax.with_sharding_constraint(queries, whole)
    return nearest_neighbour.nearest(before, queries, images, there, first)

  return jax.jit(search, out_shardings=whole)


def _shrink(lowres):
  @jax.jit
  def shrink(originals):
    x_0 = pixels.to_float(originals)
    return pixels.to_uint8(lowres_conditioning.downsample(x_0, lowres))

  return shrink
