"""Defines what a metric declares: its input, its result, its convention.

A metric of pairs takes one image with its original, a metric of sets takes the
reduced features of all images at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Pair(NamedTuple):
  """An image and what it is compared with.

  Attributes:
    sample: uint8 [H, W, 3].
    reference: its original, uint8 [H, W, 3].
    lowres: uint8 [h, w, 3], the input that the sample was made from, or None.
    downsample: filter that the low-res image was made with.
    perceptual: (sample, reference) -> distance, with a sentence `convention`;
      or None.
  """

  sample: np.ndarray
  reference: np.ndarray
  lowres: np.ndarray | None = None
  downsample: str = 'bicubic'
  perceptual: Any = None


class PairMeasure(NamedTuple):
  """A metric of one image and its original.

  Attributes:
    function: Pair -> value, which may be infinite.
    convention: sentence that defines the metric, or a function (downsample,
      perceptual) -> sentence, see `Pair`.
    least_side: least height and width of an image in pixels.
  """

  function: Callable[[Pair], float]
  convention: str | Callable[[str, Any], str]
  least_side: int = 1

  def describe(self, downsample: str, perceptual: Any = None) -> str:
    """Returns the sentence that defines the metric.

    Args:
      downsample, perceptual: see `Pair`.
    """
    if isinstance(self.convention, str):
      return self.convention
    return self.convention(downsample, perceptual)


class SetMeasure(NamedTuple):
  """A metric of a set of images.

  Attributes:
    function: (samples, reference, size) -> {name of a number: value}. Samples
      and reference are what `SetMetric.takes` of the table names: (mean [D],
      covariance [D, D]), features [N, D], or `inception_score.Sums`, without a
      reference. size is the number of images of a subset.
    convention: sentence that defines the metric; '{size}' stands for size.
  """

  function: Callable[[Any, Any, int], dict[str, float]]
  convention: str
