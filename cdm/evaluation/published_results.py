"""Holds the numbers that papers print, for every table that compares with them.

A number is kept as it is printed, with how it is known:

  READ        read in the paper or on its authors' project page
  SECOND_HAND read in a table of another text that quotes the paper
  INFERRED    read, but what it belongs to is deduced
  UNVERIFIED  commonly quoted, and not checked against the paper's own text

A method that cdm has no code for (BigGAN-deep, LOGAN, VQ-VAE-2, ADM, ...) is
compared by these numbers; samples of it, given as files, are scored by the
commands that score ours. docs/reproduction.md shows the tables of CDM and SR3.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

READ, SECOND_HAND = 'READ', 'SECOND_HAND'
INFERRED, UNVERIFIED = 'INFERRED', 'UNVERIFIED'
# What stands behind a number in the tables below, and in the documents.
MARKS = {
  '': READ,
  'S': SECOND_HAND,
  'I': INFERRED,
  'U': UNVERIFIED,
}


class Number(NamedTuple):
  """A printed number.

  Attributes:
    text: as it is printed, such as '67.95 ± 1.97'.
    known: how it is known, a value of `MARKS`.
  """

  text: str
  known: str

  @property
  def value(self) -> float:
    """The number without its uncertainty."""
    return float(self.text.partition('±')[0])


class Table(NamedTuple):
  """A table of a paper, or the part of it for one size of images.

  Attributes:
    source: where it is printed.
    what: the images and the task.
    columns: {heading: metric}. The metrics are named as in the rows of
      `cdm evaluate` where it has them.
    rows: {method: {metric: Number}}, in the order of the paper; a metric that
      the paper does not print of a method is left out.
    labels: what tells this table from others of the same paper, such as '128'.
  """

  source: str
  what: str
  columns: Mapping[str, str]
  rows: Mapping[str, Mapping[str, Number]]
  labels: tuple[str, ...] = ()


def number(table: str, method: str, metric: str) -> Number | None:
  """Returns a published number; None if the paper prints none.

  Args:
    table: a key of `tables()`.
    method: a row of it.
    metric: a metric of its columns.
  """
  return tables()[table].rows.get(method, {}).get(metric)


@functools.cache
def tables() -> Mapping[str, Table]:
  """Returns {name: Table}, in the order of the papers."""
  return {**_cdm(), **_sr3(), **_prsr(), **_pulse()}


def _table(
  source: str,
  what: str,
  columns: Mapping[str, str],
  text: str,
  labels: Sequence[str] = (),
) -> Table:
  """Reads a table: a line per row, `method | number | number U | ...`."""
  rows = {}
  for line in text.strip().splitlines():
    method, *cells = (cell.strip() for cell in line.split('|'))
    if len(cells) != len(columns):
      raise ValueError(
        f'{line!r} has {len(cells)} numbers; {source} has {len(columns)} '
        'columns.'
      )
    rows[method] = {
      metric: _number(cell)
      for metric, cell in zip(columns.values(), cells, strict=True)
      if cell
    }
  return Table(source, what, columns, rows, tuple(labels))


def _number(cell):
  for mark, known in MARKS.items():
    if mark and cell.endswith(f' {mark}'):
      return Number(cell.removesuffix(f' {mark}'), known)
  return Number(cell, READ)


_FID_IS = {
  'FID train': 'fid_train',
  'FID val': 'fid_val',
  'IS': 'inception_score',
}
_CAS = {'top-1 %': 'cas_top1', 'top-5 %': 'cas_top5'}


def _cdm() -> dict[str, Table]:
  """The tables of arXiv 2106.15282v3."""
  found = {}
  for size, text in (
    (32, 'CDM | 1.11 | 1.99 | 26.01 ± 0.59'),
    (
      64,
      """
      BigGAN-deep | 4.06 | |
      Improved DDPM | 2.92 | |
      ADM | 2.07 | |
      CDM | 1.48 | 2.48 | 67.95 ± 1.97
      """,
    ),
    (
      128,
      """
      BigGAN-deep | 5.7 | | 124.5
      BigGAN-deep, highest IS | 25 | | 253
      LOGAN | 3.36 | | 148.2
      ADM, no guidance | 5.91 | |
      CDM | 3.52 | 3.76 | 128.80 ± 2.51
      """,
    ),
    (
      256,
      """
      BigGAN-deep | 6.9 | | 171.4
      BigGAN-deep, highest IS | 27 | | 317
      VQ-VAE-2 | 31.11 | |
      Improved DDPM | 12.26 | |
      SR3 | 11.30 | |
      ADM, no guidance | 10.94 | | 100.98
      ADM with upsampling | 7.49 | | 127.49
      CDM | 4.88 | 4.63 | 158.71 ± 2.26
      """,
    ),
  ):
    found[f'cdm_imagenet{size}'] = _table(
      '[CDM] tab. 1',
      f'class-conditional ImageNet, {size} px, no guidance',
      _FID_IS,
      text,
      [f'{size}'],
    )
  for size, text in (
    (
      128,
      """
      real images | 68.82 | 88.79
      BigGAN-deep | 40.64 | 64.44
      HAM | 54.05 | 77.33
      CDM | 59.84 | 81.79
      """,
    ),
    (
      256,
      """
      real images | 73.09 | 91.47
      BigGAN-deep | 42.65 | 65.92
      VQ-VAE-2 | 54.83 | 77.59
      CDM | 63.02 | 84.06
      """,
    ),
  ):
    found[f'cdm_cas{size}'] = _table(
      '[CDM] tab. 1b',
      f'classification accuracy score, ImageNet, {size} px',
      _CAS,
      text,
      [f'{size}'],
    )
  return found


def _sr3() -> dict[str, Table]:
  """The tables of arXiv 2104.07636, and of its project page."""
  return {
    'sr3_faces': _table(
      '[SR3] tab. 1',
      'faces, 16 -> 128, CelebA-HQ; consistency is an MSE in units of 1e-5',
      {'PSNR': 'psnr', 'SSIM': 'ssim', 'consistency': 'consistency_1e-5'},
      """
      PULSE | 16.88 | 0.44 | 161.1
      FSRGAN | 23.01 | 0.62 | 33.8
      regression | 23.96 | 0.69 | 2.71
      SR3 | 23.04 | 0.65 | 2.68
      """,
    ),
    'sr3_imagenet': _table(
      '[SR3] tab. 2',
      'natural images, ImageNet validation, 64 -> 256',
      {'FID': 'fid', 'IS': 'inception_score', 'PSNR': 'psnr', 'SSIM': 'ssim'},
      """
      reference images | 1.9 | 240.8 | |
      regression | 15.2 | 121.1 | 27.9 | 0.801
      SR3 | 5.2 | 180.1 | 26.4 | 0.762
      """,
    ),
    'sr3_classification': _table(
      '[SR3] tab. 3',
      'error of ResNet-50 after 4x super-resolution of 56 px crops, the first '
      '1,000 validation images of ImageNet',
      {'top-1': 'top1_error', 'top-5': 'top5_error'},
      """
      baseline | .252 | .080
      DRCN | .477 | .242
      FSRCNN | .437 | .196
      PsyCo | .454 | .224
      ENet-E | .449 | .214
      RCAN | .393 | .167
      regression | .383 | .173
      SR3 | .317 | .120
      """,
    ),
    'sr3_generation': _table(
      '[SR3] tab. 4',
      'class-conditional ImageNet, 256 px, 50,000 samples',
      {'FID': 'fid'},
      """
      VQ-VAE-2 | 38.1
      BigGAN, truncation 1.0 | 7.4
      BigGAN, truncation 1.5 | 11.8
      SR3, two stages | 11.3
      """,
    ),
    'sr3_ablation': _table(
      '[SR3] tab. 5',
      'the second stage of that cascade',
      {'FID': 'fid'},
      """
      blur, L1 | 11.3
      no blur | 13.1
      L2 | 11.8
      """,
    ),
    # The figure does not say which task it is; the text does, by its order.
    'sr3_fool_rates': _table(
      '[SR3] and its project page',
      'how often people took the image for the photograph, %',
      {
        'faces 16 → 128, input not shown': 'faces',
        'faces 16 → 128, input shown': 'faces_input_shown',
        'ImageNet 64 → 256, input not shown': 'imagenet',
        'ImageNet 64 → 256, input shown': 'imagenet_input_shown',
      },
      """
      FSRGAN | 8.5 I | 8.9 U | |
      PULSE | 33.7 I | 24.6 U | |
      regression | 15.3 I | 29.3 U | 13.4 I | 16.8 U
      SR3 | 47.4 I | 54.1 U | 39.0 I | 38.9 U
      """,
    ),
    'sr3_unofficial': _table(
      'the unofficial PyTorch port of SR3 by Janspiry',
      'SR3 with a smaller network, means over 50 images',
      {'PSNR': 'psnr', 'SSIM': 'ssim'},
      """
      faces 16 → 128 | 23.26 | 0.675
      faces 64 → 512 | 19.87 | 0.445
      """,
    ),
  }


_PRSR = {
  'pSNR': 'psnr_printed',
  'SSIM': 'ssim',
  'MS-SSIM': 'ms_ssim',
  'consistency': 'consistency_printed',
  '% fooled': 'fool_rate',
}


def _prsr() -> dict[str, Table]:
  """The tables of arXiv 1702.00783, as ICCV 2017 printed them; none was read.

  All pSNRs lie within 1 dB, bicubic's too, so that they are hardly the usual
  PSNR; nor is the scale of the consistency stated.
  """
  return {
    'prsr_celeba': _table(
      '[PRSR], ICCV version',
      'CelebA, 8 -> 32',
      _PRSR,
      """
      bicubic | 28.92 U | 0.84 U | 0.76 U | 0.006 U |
      nearest neighbour | 28.18 U | 0.73 U | 0.66 U | 0.024 U |
      regression | 29.16 U | 0.90 U | 0.90 U | 0.004 U | 4.0 ± 0.2 U
      PRSR, tau = 1.0 | 29.09 U | 0.84 U | 0.86 U | 0.008 U | 11.0 ± 0.1 U
      PRSR, tau = 1.1 | 29.08 U | 0.84 U | 0.85 U | 0.008 U | 10.4 ± 0.2 U
      PRSR, tau = 1.2 | 29.08 U | 0.84 U | 0.86 U | 0.008 U | 10.2 ± 0.1 U
      """,
      ['CelebA'],
    ),
    'prsr_bedrooms': _table(
      '[PRSR], ICCV version',
      'LSUN bedrooms, 8 -> 32',
      _PRSR,
      """
      bicubic | 28.94 U | 0.70 U | 0.70 U | 0.002 U |
      nearest neighbour | 28.15 U | 0.49 U | 0.45 U | 0.040 U |
      regression | 28.87 U | 0.74 U | 0.75 U | 0.003 U | 2.1 ± 0.1 U
      PRSR, tau = 1.0 | 28.92 U | 0.58 U | 0.60 U | 0.016 U | 17.7 ± 0.4 U
      PRSR, tau = 1.1 | 28.92 U | 0.59 U | 0.59 U | 0.017 U | 22.4 ± 0.3 U
      PRSR, tau = 1.2 | 28.93 U | 0.59 U | 0.58 U | 0.018 U | 27.9 ± 0.3 U
      """,
      ['LSUN'],
    ),
  }


def _pulse() -> dict[str, Table]:
  """The tables of arXiv 2003.03808."""
  return {
    'pulse_opinions': _table(
      '[PULSE]',
      'CelebA-HQ, 8x, mean opinion score of 1 to 5; whether 16 -> 128 or '
      '128 -> 1024 is not known',
      {'MOS': 'mean_opinion_score'},
      """
      original | 3.74 U
      nearest | 1.01 U
      bicubic | 1.34 U
      FSRNet | 2.77 U
      FSRGAN | 2.92 U
      PULSE | 3.60 S
      """,
    ),
    'pulse_naturalness': _table(
      '[PULSE]',
      'CelebA-HQ, 1024 px, NIQE, smaller is better',
      {'NIQE': 'niqe'},
      """
      original | 3.90 U
      nearest | 12.48 U
      bicubic | 7.06 U
      PULSE | 2.47 U
      """,
    ),
  }
