"""Reads published weights: a PyTorch or safetensors file, by its content.

Training programs save the parameters alone, or a larger dictionary in which
they are one entry, and put a prefix before every name where a wrapper held the
network. Both are undone here.
"""

import os
from collections.abc import Sequence

import numpy as np

from cdm.models.pretrained import pytorch_file, safetensors_file
from cdm.models.pretrained.damaged_weights import DamagedWeights

# Entries of a larger dictionary that hold the parameters, the average first.
PARTS = ('ema', 'model_ema', 'state_dict', 'model', 'params')
# Data parallelism puts the first before every name, compilation the second.
PREFIXES = ('module.', '_orig_mod.')


def read(
  path: str | os.PathLike, prefixes: Sequence[str] = ()
) -> dict[str, np.ndarray]:
  """Reads the arrays of a file.

  Args:
    path: path of the file.
    prefixes: what a family's wrappers put before names, beside `PREFIXES`.

  Returns:
    {name: array}, without prefixes. The numbers may be of half the size.

  Raises:
    DamagedWeights: the file is of neither kind, cut off, or would run code.
    OSError: the file cannot be read.
  """
  if _is_safetensors(path):
    arrays = safetensors_file.read(path)
  else:
    arrays = pytorch_file.read(path, *PARTS)
  if not arrays:
    raise DamagedWeights(
      f'{path} holds no arrays under names, nor a dictionary of them called '
      f'{", ".join(PARTS)}; give a file of weights.'
    )
  for prefix in (*PREFIXES, *prefixes):
    if any(name.startswith(prefix) for name in arrays):
      arrays = {n.removeprefix(prefix): value for n, value in arrays.items()}
  return arrays


def _is_safetensors(path: str | os.PathLike) -> bool:
  """Tells by the first bytes: the length of a header, which begins with {."""
  with open(path, 'rb') as file:
    head = file.read(9)
  return head[8:] == b'{' and int.from_bytes(head[:8], 'little') < 1 << 32
