from cdm.data import error_line


def test_an_error_without_words_is_told_by_its_kind():
  for error, told in (
    (ValueError('bad name.\nmore'), 'bad name'),
    (KeyError(), 'KeyError'),
    (AssertionError(' \n'), 'AssertionError'),
    (OSError('x' * 300), 'x' * 200),
  ):
    assert error_line.first_line(error) == told
