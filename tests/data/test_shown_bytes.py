import pytest

from cdm.data.shown_bytes import shown


@pytest.mark.parametrize(
  ('count', 'text'),
  [(0, '0 kB'), (1.334e9, '1.33 GB'), (63e6, '63 MB'), (2e12, '2 TB')],
)
def test_bytes_have_the_largest_unit_that_they_fill(count, text):
  assert shown(count) == text
