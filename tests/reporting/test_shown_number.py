from cdm.reporting.shown_number import ABSENT, ShownNumber


def test_equal_numbers_in_print_are_equally_good():
  shown = ShownNumber('PSNR', 'dB', '.2f')
  assert shown.best({'a': 20.0, 'b': 21.0, 'c': None}) == ['b']
  assert shown.best({'a': 20.001, 'b': 20.0}) == []
  assert shown.best({'a': 20.001, 'b': 20.0, 'c': 1.0}) == ['a', 'b']
  assert shown.best({'a': 20.0, 'b': None}) == []
  lower = ShownNumber('consistency', '1e-5', higher_is_better=False, scale=1e5)
  assert lower.best({'ours': 2e-5, 'bicubic': 1e-4}) == ['ours']
  assert lower.text(2.68e-5) == '2.68'
  assert lower.text(None) == ABSENT
  assert lower.heading == 'consistency, 1e-5'
