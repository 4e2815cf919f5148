"""Turns the stored numbers of an array into values, and values into numbers."""

import numpy as np

from cdm.data.arrays.array_layout import Layout


def values(stored: np.ndarray, layout: Layout) -> np.ndarray:
  """Returns float64 values, NaN where there is none; see `Layout`."""
  found = stored.astype(np.float64)
  missing = ~np.isfinite(found)
  if layout.nodata is not None:
    missing |= found == layout.nodata
  found = layout.scale * found + layout.zero
  found[missing] = np.nan
  return found


def stored(values: np.ndarray, layout: Layout) -> np.ndarray:
  """Returns values as they are stored: whole numbers are rounded and clipped.

  Args:
    values: float64 [...], none of them missing.
    layout: says what is stored.
  """
  found = (values - layout.zero) / layout.scale
  dtype = layout.dtype
  if dtype.kind == 'f':
    most = np.finfo(dtype).max
    return np.clip(found, -most, most).astype(dtype)
  limits = np.iinfo(dtype)
  found = np.clip(np.floor(found + 0.5), limits.min, limits.max)
  if layout.nodata is not None:
    # A value must not become the number that means that there is none.
    beside = 1 if layout.nodata < limits.max else -1
    found[found == layout.nodata] += beside
  return found.astype(dtype)
