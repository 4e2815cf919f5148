"""Lists every metric: how it is shown, and which code computes it.

`cdm evaluate`, `cdm sweep`, `cdm robustness` and `cdm report`, their help, and
the line of a result read it. A new metric is a file in `evaluation/metrics`
with a `PairMeasure` or a `SetMeasure`, and one line here.

The code is named by a text and imported when it is needed: help, which reads
this table too, wakes neither NumPy nor JAX.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from cdm.reporting.shown_number import ShownNumber

if TYPE_CHECKING:
  from cdm.evaluation.metrics.measure import PairMeasure, SetMeasure

HIGHER, LOWER = True, False  # which way is better
HERE = 'cdm.evaluation.metrics'


def _load(code: str) -> Any:
  module, _, name = code.partition(':')
  return getattr(importlib.import_module(module), name)


@dataclasses.dataclass(frozen=True)
class PairMetric:
  """A metric of an image and its original.

  Attributes:
    number: how its number is shown.
    code: 'module:name' of its `PairMeasure`.
    needs: 'lowres' or 'perceptual', the field of `Pair` without which it has no
      value; '' if it needs neither.
  """

  number: ShownNumber
  code: str
  needs: str = ''

  @property
  def measure(self) -> PairMeasure:
    """The code of the metric, imported now."""
    return _load(self.code)


@dataclasses.dataclass(frozen=True)
class SetMetric:
  """A metric of a set of images.

  Attributes:
    numbers: {name of a number in the row: how it is shown}. The row may also
      hold a number called NAME_std.
    code: 'module:name' of its `SetMeasure`.
    takes: field of `feature_statistics.Gathered` that it is computed from:
      'pool' or 'spatial', moments; 'features'; or 'scores', without a
      reference.
  """

  numbers: dict[str, ShownNumber]
  code: str
  takes: str

  @property
  def measure(self) -> SetMeasure:
    """The code of the metric, imported now."""
    return _load(self.code)

  @property
  def alone(self) -> bool:
    """Whether it takes no reference."""
    return self.takes == 'scores'

  @property
  def from_moments(self) -> bool:
    """Whether the stored statistics of a reference are enough for it."""
    return self.takes in ('pool', 'spatial')


Shown = ShownNumber  # short, for the table
# fmt: off
SETS = {
  'fid': SetMetric(
    {'fid': Shown('FID', '', '.2f', LOWER,
                  paper=('fid_train', 'fid_val', 'fid'))},
    f'{HERE}.fid:FID', takes='pool'),
  'fd': SetMetric(
    {'fd': Shown('Fréchet distance', '', '.3f', LOWER)},
    f'{HERE}.fid:FRECHET', takes='pool'),
  'sfid': SetMetric(
    {'sfid': Shown('sFID', '', '.2f', LOWER)},
    f'{HERE}.fid:FID_SPATIAL', takes='spatial'),
  'is': SetMetric(
    {'is': Shown('IS', '', '.2f', HIGHER, paper=('inception_score',))},
    f'{HERE}.inception_score:INCEPTION_SCORE', takes='scores'),
  'kid': SetMetric(
    {'kid': Shown('KID', '', '.5f', LOWER)},
    f'{HERE}.kid:KID', takes='features'),
  'pr': SetMetric(
    {'precision': Shown('precision', '', '.3f', HIGHER),
     'recall': Shown('recall', '', '.3f', HIGHER)},
    f'{HERE}.precision_recall:PRECISION_RECALL', takes='features'),
}
PAIRS = {
  'psnr': PairMetric(
    Shown('PSNR', 'dB', '.2f', HIGHER, paper=('psnr',)),
    f'{HERE}.distortion:PSNR'),
  'psnr_y': PairMetric(
    Shown('PSNR of luma', 'dB', '.2f', HIGHER),
    f'{HERE}.distortion:PSNR_Y'),
  'ssim': PairMetric(
    Shown('SSIM', '', '.3f', HIGHER, paper=('ssim',)),
    f'{HERE}.distortion:SSIM'),
  'ssim_gaussian': PairMetric(
    Shown('SSIM, Gaussian window', '', '.3f', HIGHER),
    f'{HERE}.distortion:SSIM_GAUSSIAN'),
  'ms_ssim': PairMetric(
    Shown('MS-SSIM', '', '.3f', HIGHER),
    f'{HERE}.distortion:MS_SSIM'),
  'consistency': PairMetric(
    # [SR3] tab. 1 shows multiples of 1e-5 too.
    Shown('Consistency', '1e-5', '.2f', LOWER, scale=1e5,
          paper=('consistency',)),
    f'{HERE}.consistency:CONSISTENCY', needs='lowres'),
  'lpips': PairMetric(
    Shown('LPIPS', '', '.3f', LOWER),
    f'{HERE}.perceptual_distance:LPIPS', needs='perceptual'),
}
# Numbers of commands that compute nothing else: `cdm cas`, `cdm accuracy`.
OF_CLASSIFIERS = {
  'cas_top1': Shown('CAS top-1 (%)', '', '.2f', HIGHER, paper=('cas_top1',)),
  'cas_top5': Shown('CAS top-5 (%)', '', '.2f', HIGHER, paper=('cas_top5',)),
  'top1_error': Shown(
    'top-1 error', '', '.3f', LOWER, paper=('resnet50_error_top1',)),
  'top5_error': Shown(
    'top-5 error', '', '.3f', LOWER, paper=('resnet50_error_top5',)),
}
# fmt: on


def numbers() -> dict[str, ShownNumber]:
  """Returns {name of a number in a row: how it is shown}, in printing order."""
  return {
    **{k: shown for m in SETS.values() for k, shown in m.numbers.items()},
    **{name: metric.number for name, metric in PAIRS.items()},
    **OF_CLASSIFIERS,
  }


def by_default() -> list[str]:
  """Returns the metrics of pairs that need no weights of a network."""
  return [name for name, m in PAIRS.items() if m.needs != 'perceptual']


def of_single_number() -> list[str]:
  """Returns the metrics of sets whose one number has the metric's name."""
  return [name for name, m in SETS.items() if list(m.numbers) == [name]]


def help_text(*, pairs: bool = True) -> str:
  """Returns the list of the metrics for the help of a command.

  Args:
    pairs: whether the command takes metrics of pairs too.
  """
  kinds = {
    'of sets': {n: [*m.numbers.values()] for n, m in SETS.items()},
    'of pairs': {n: [m.number] for n, m in PAIRS.items() if pairs},
  }
  lines = ['metrics:']
  for kind, metrics in kinds.items():
    lines += [f'  {kind}'] if metrics else []
    for name, shown in metrics.items():
      title = ' and '.join(number.heading for number in shown)
      way = 'higher' if shown[0].higher_is_better else 'lower'
      lines.append(f'    {name:<16}{title}; {way} is better')
  return '\n'.join(lines) + '\n'
