"""Numbers and columns as a terminal shows them."""

import pytest

from cdm.reporting import text_table


@pytest.mark.parametrize(
  ('number', 'text'),
  [
    (999, '999 FLOP'),
    (1_500, '1.5 kFLOP'),
    (2_239_665_537_024, '2.24 TFLOP'),
    (151_300_000_000, '151 GFLOP'),
    (999_600_000, '1000 MFLOP'),
  ],
)
def test_large_numbers_are_written_with_three_digits(number, text):
  assert text_table.format_si(number, 'FLOP') == text
