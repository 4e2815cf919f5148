import html
import re

import pytest

from cdm.reporting.shown_number import ShownNumber
from cdm.training import score_table

NUMBERS = {
  'psnr': ShownNumber('PSNR', unit='dB'),
  'ssim': ShownNumber('SSIM'),
  'consistency': ShownNumber('Consistency', higher_is_better=False, scale=1e5),
  'lpips': ShownNumber('LPIPS', higher_is_better=False),
}
OURS = {'psnr': 24.5, 'ssim': 0.75, 'consistency': 3e-5}
BICUBIC = {'psnr': 23.0, 'ssim': 0.75, 'consistency': 9e-5}


def quality(ours=OURS, bicubic=BICUBIC, **more):
  row = dict(n=1200, image_size=[48, 64], conventions={}, **ours)
  return row | ({} if bicubic is None else {'bicubic': bicubic}) | more


def shown(row):
  """Returns what the section says, and the cells that are marked."""
  made = ''.join(map(str, score_table.section(row, NUMBERS)))
  marked = re.findall(r'<td[^>]*class="[^"]*best[^"]*"[^>]*>(.*?)</td>', made)
  return html.unescape(re.sub('<[^>]*>', ' ', made)), marked


def test_the_better_of_each_column_is_marked_and_only_then_is_it_said():
  text, marked = shown(quality())
  assert marked == ['24.50', '3.00']  # both have an SSIM of 0.75
  assert 'Means over 1,200 pairs of 64x48 pixels.' in text
  assert 'The better number of a column is marked.' in text
  assert 'lower is better' in text and 'LPIPS' not in text
  text, marked = shown(quality(bicubic=None))
  assert not marked and 'marked' not in text and 'bicubic' not in text
  text, marked = shown(quality(OURS | {'consistency': 1e-4}))
  assert marked == ['24.50', '9.00']


@pytest.mark.parametrize(
  ('ours', 'bicubic', 'said'),
  [
    (24.0, 24.5, True),
    (24.0, 24.0, False),
    (24.5, 24.0, False),
    (24.0, None, False),
    (None, 24.0, False),
  ],
)
def test_a_higher_psnr_of_bicubic_is_explained(ours, bicubic, said):
  row = quality(OURS | {'psnr': ours}, BICUBIC | {'psnr': bicubic})
  assert ('here its PSNR is higher' in shown(row)[0]) is said


def test_a_mean_over_fewer_pairs_says_so():
  counts = {'psnr': 1190, 'ssim': 1200, 'lpips': 3}
  text, _ = shown(quality(counts=counts))
  assert 'PSNR is over 1,190 of them' in text
  assert 'SSIM is over' not in text and 'LPIPS' not in text


def test_a_number_that_only_bicubic_has_is_shown_too():
  ours = {'psnr': 24.5, 'ssim': None}
  assert score_table.columns(quality(ours), NUMBERS) == [*NUMBERS][:3]
  bicubic = {'psnr': 23.0, 'ssim': None}
  assert score_table.columns(quality(ours, bicubic), NUMBERS) == ['psnr']
  assert 'Consistency' not in shown(quality(ours, bicubic))[0]
