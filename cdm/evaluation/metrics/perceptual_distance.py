"""Declares LPIPS, whose network `evaluation.lpips_scorer` runs."""

from cdm.evaluation.metrics.measure import PairMeasure

LPIPS = PairMeasure(
  lambda pair: pair.perceptual(pair.sample, pair.reference),
  lambda downsample, perceptual: perceptual.convention,
)
