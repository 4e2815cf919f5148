"""Reads the arrays of a .safetensors file.

The file is the length of a header (8 bytes, little-endian), the header (JSON:
for every array its dtype, shape and place), and the numbers. No part of it is a
program. The arrays are views of what the file holds.
"""

import json
import math
import os
from typing import Any

import jax.numpy as jnp
import numpy as np

from cdm.models.pretrained.damaged_weights import DamagedWeights

_TYPES = {
  'F64': np.dtype('<f8'),
  'F32': np.dtype('<f4'),
  'F16': np.dtype('<f2'),
  'BF16': np.dtype(jnp.bfloat16),
  'I64': np.dtype('<i8'),
  'I32': np.dtype('<i4'),
  'U8': np.dtype('u1'),
  'BOOL': np.dtype('?'),
}
# Of a header, as the format itself bounds it.
_MOST_BYTES = 100_000_000
_METADATA = '__metadata__'


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the arrays.

  Args:
    path: path of the .safetensors file.

  Returns:
    {name: array}; the arrays are read-only views of the file on disk, which
    must stay as it is.

  Raises:
    DamagedWeights: the file is cut off or of another kind.
    OSError: the file cannot be read.
  """
  try:
    return _read(path)
  except (ValueError, TypeError, KeyError, RecursionError) as error:
    raise DamagedWeights(
      f'{path} cannot be read as a safetensors file ({error}); it may be cut '
      'off or of another kind, so fetch it again.'
    ) from error


def _read(path) -> dict[str, np.ndarray]:
  with open(path, 'rb') as file:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), 'little')
    start = 8 + length
    if size < 8 or length > _MOST_BYTES or start > size:
      raise ValueError(f'it says that its header has {length:,} bytes')
    header = json.loads(file.read(length))
  if not isinstance(header, dict):
    raise ValueError('its header is no JSON object')
  header.pop(_METADATA, None)
  content = np.zeros(0, np.uint8)
  if size > start:
    content = np.memmap(path, np.uint8, 'r', start)
  return {name: _array(name, entry, content) for name, entry in header.items()}


def _array(name: str, entry: Any, content: np.ndarray) -> np.ndarray:
  shown = repr(name)[:100]
  kind, shape, place = entry['dtype'], entry['shape'], entry['data_offsets']
  if not isinstance(kind, str) or kind not in _TYPES:
    raise ValueError(f'{shown} has the unknown dtype {kind!r:.40}')
  numbers = [*shape, *place]
  if not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
    raise ValueError(f'{shown} has an impossible shape or place')
  dtype = _TYPES[kind]
  begin, end = place
  if len(shape) > 32 or end > len(content):
    raise ValueError(f'{shown} ends after the file')
  if end - begin != math.prod(shape) * dtype.itemsize:
    raise ValueError(
      f'{shown} has {end - begin:,} bytes, which is not its shape {shape}'
    )
  return content[begin:end].view(dtype).reshape(shape)
