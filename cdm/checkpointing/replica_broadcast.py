"""Gives an array that some processes have read to all that hold a copy of it.

The bytes of all arrays form one stream, which is sent in pieces of one size, so
that one small program is compiled, however many arrays there are. In each piece
every device holds what it has read, and zeros elsewhere; the sum over all
copies is what was read. Bits are added as whole numbers, so that every value
arrives as it was: in floating point, -0 + 0 is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Bytes that are sent to each device at once.
PIECE_BYTES = 64 << 20
_LEAST_BYTES = 1 << 10
_WORD = np.dtype(np.uint32)


class Sent(NamedTuple):
  """An array on its way.

  Attributes:
    target: ShapeDtypeStruct with the NamedSharding to give it.
    axes: the axes of the mesh that repeat it.
    read: the array as this process has read it, on some of the devices of the
      target's sharding; None if this process has read nothing of it.
  """

  target: Any
  axes: tuple[str, ...]
  read: jax.Array | None


def broadcast(
  arrays: Sequence[Sent], *, piece_bytes: int = PIECE_BYTES
) -> list[jax.Array]:
  """Returns the arrays, whole in every process.

  A collective: every process must call it, with the same targets and axes.

  Args:
    arrays: what is sent.
    piece_bytes: see `PIECE_BYTES`.
  """
  streams: dict[Any, list[int]] = {}
  for position, sent in enumerate(arrays):
    kind = (sent.target.sharding.mesh, sent.axes)
    streams.setdefault(kind, []).append(position)
  received: dict[int, jax.Array] = {}
  for (mesh, axes), positions in streams.items():
    stream = _Stream(mesh, axes, [arrays[p] for p in positions], piece_bytes)
    received |= zip(positions, stream.send(), strict=True)
  return [received[position] for position in range(len(arrays))]


class _Part(NamedTuple):
  """The bytes of one array that lie in one piece of the stream.

  Attributes:
    array: position of the array.
    of_array, of_piece: where these bytes are, as slices.
  """

  array: int
  of_array: slice
  of_piece: slice


class _Stream:
  """Arrays that the same axes of one mesh repeat, one behind the other."""

  def __init__(
    self, mesh: Mesh, axes: tuple[str, ...], arrays: list[Sent], most: int
  ):
    self._mesh, self._axes, self._arrays = mesh, axes, arrays
    self._sizes = [_shard_bytes(sent.target) for sent in arrays]
    # A power of two, so that states of about one size need one program.
    enough = 1 << (sum(self._sizes) - 1).bit_length()
    self._piece = max(_LEAST_BYTES, min(most, enough))
    # {place along the other axes: the devices here that hold the same}.
    self._columns: dict[tuple[int, ...], list[jax.Device]] = {}
    others = [
      n for n, name in enumerate(mesh.axis_names) if name not in self._axes
    ]
    for place, device in np.ndenumerate(mesh.devices):
      if device.process_index == jax.process_index():
        column = tuple(place[n] for n in others)
        self._columns.setdefault(column, []).append(device)

  def send(self) -> Iterator[jax.Array]:
    """Yields the arrays, each as soon as its last byte is here."""
    add = self._program()
    zeros: dict[jax.Device, jax.Array] = {}
    kept: dict[int, dict[jax.Device, np.ndarray]] = {}  # read, not yet sent
    arrived: dict[int, dict[Any, np.ndarray]] = {}
    for parts in self._pieces():
      for part in parts:
        if part.array not in kept:
          kept[part.array] = _bytes_read(self._arrays[part.array].read)
      piece = self._filled(parts, kept, zeros)
      # Of what several devices here hold, one tells the host.
      sums = {s.device: s.data for s in add(piece).addressable_shards}
      for column, devices in self._columns.items():
        data = np.asarray(sums[devices[0]]).view(np.uint8)
        for part in parts:
          whole = arrived.setdefault(part.array, {}).setdefault(
            column, np.empty(self._sizes[part.array], np.uint8)
          )
          whole[part.of_array] = data[part.of_piece]
      for part in parts:
        if part.of_array.stop == self._sizes[part.array]:
          kept.pop(part.array)
          yield self._placed(part.array, arrived.pop(part.array))

  def _program(self):
    everywhere = PartitionSpec(self._mesh.axis_names)
    return jax.jit(
      jax.shard_map(
        lambda words: jax.lax.psum(words, self._axes),
        mesh=self._mesh,
        in_specs=everywhere,
        out_specs=everywhere,
      )
    )

  def _pieces(self) -> Iterator[list[_Part]]:
    """Yields, piece by piece, which bytes of which arrays it carries."""
    parts, filled = [], 0
    for array, size in enumerate(self._sizes):
      begin = 0
      while begin < size:
        end = min(size, begin + self._piece - filled)
        after = filled + end - begin
        parts.append(_Part(array, slice(begin, end), slice(filled, after)))
        begin, filled = end, after
        if filled == self._piece:
          yield parts
          parts, filled = [], 0
    if parts:
      yield parts

  def _filled(self, parts, kept, zeros) -> jax.Array:
    """Returns a piece in which each device holds what was read on it."""
    buffers: dict[jax.Device, np.ndarray] = {}
    for part in parts:
      for device, data in kept[part.array].items():
        if device not in buffers:
          buffers[device] = np.zeros(self._piece, np.uint8)
        buffers[device][part.of_piece] = data[part.of_array]
    shards = []
    for device in (d for devices in self._columns.values() for d in devices):
      if device in buffers:
        words = buffers[device].view(_WORD)
        shards.append(jax.device_put(words, device))
        continue
      if device not in zeros:
        empty = np.zeros(self._piece, np.uint8).view(_WORD)
        zeros[device] = jax.device_put(empty, device)
      shards.append(zeros[device])
    words = self._mesh.devices.size * self._piece // _WORD.itemsize
    return jax.make_array_from_single_device_arrays(
      (words,),
      NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names)),
      shards,
    )

  def _placed(self, array: int, columns) -> jax.Array:
    """Returns an array on its devices, of its bytes in every column."""
    target = self._arrays[array].target
    shape = target.sharding.shard_shape(target.shape)
    shards = []
    for column, devices in self._columns.items():
      values = columns[column].view(target.dtype).reshape(shape)
      shards += [jax.device_put(values, device) for device in devices]
    return jax.make_array_from_single_device_arrays(
      target.shape, target.sharding, shards
    )


def _bytes_read(array: jax.Array | None) -> dict[jax.Device, np.ndarray]:
  """Returns the bytes of the shards that this process has read."""
  if array is None:
    return {}
  return {
    shard.device: np.ascontiguousarray(shard.data).reshape(-1).view(np.uint8)
    for shard in array.addressable_shards
  }


def _shard_bytes(target: Any) -> int:
  shape = target.sharding.shard_shape(target.shape)
  return math.prod(shape) * target.dtype.itemsize
