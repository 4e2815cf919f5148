"""Measures how well super-resolved images agree with their low-res inputs.

  consistency = mean (downsample(sr) - lowres)^2, on the [0, 1] scale

[SR3] tab. 1 prints it in units of 1e-5 and does not state the range; on the
[0, 1] scale the paper's 2.68 is an error of 1.3 grey levels. 0 means that
shrinking the image gives back its input, byte for byte.
"""

from cdm.evaluation.metrics.measure import Pair, PairMeasure
from cdm.ops.pair_scores import consistency

CONVENTION = (
  'MSE on the [0, 1] scale between lowres and the image shrunk by {method} '
  'with antialiasing{rounding}; SR3 prints multiples of 1e-5'
)
ROUNDING = {
  True: ', rounded to uint8 as Pillow does',
  False: ', not rounded',
}


def convention(method: str, rounded: bool = True) -> str:
  """Returns the sentence to print beside the number.

  Args:
    method, rounded: see `pair_scores.consistency`.
  """
  return CONVENTION.format(method=method, rounding=ROUNDING[rounded])


def _of_pair(pair: Pair) -> float:
  assert pair.lowres is not None  # the table says that it is needed
  sample, lowres = pair.sample[None], pair.lowres[None]
  return float(consistency(sample, lowres, method=pair.downsample)[0])


CONSISTENCY = PairMeasure(
  _of_pair, lambda downsample, perceptual: convention(downsample)
)
