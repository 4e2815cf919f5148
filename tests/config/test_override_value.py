"""What an override's text becomes, and the sentence if it cannot be."""

import math

import pytest

from cdm.config import override_value


@pytest.mark.parametrize(
  ('text', 'old', 'value'),
  [
    ('16', 8, 16),
    ('1e4', 8, 10_000),
    ('1', 0.5, 1.0),
    ('False', True, False),
    ('3', 'name', '3'),
    ('[1, 2]', (1,), (1, 2)),
    ('(1, 2)', [1], [1, 2]),
    ('3', (1,), (3,)),
    ('None', 8, None),
    ('0.5', None, 0.5),
    ('a/b', None, 'a/b'),
  ],
)
def test_a_value_has_the_type_of_what_it_replaces(text, old, value):
  parsed = override_value.parse(text, old, 'a.b')
  assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize('old', [8, 0.5, (1, 2), [1], True])
@pytest.mark.parametrize(
  'text',
  ['-' * 5000 + '1', '(' * 5000, '{[]: 1}', '1' * 5000, '', '\0', '1e999',
   'nan', '-inf', 'many', '{}', '(1, nan)'],
)  # fmt: skip
def test_no_text_ends_in_another_error_than_one_short_sentence(text, old):
  try:
    override_value.parse(text, old, 'a.b')
  except ValueError as error:
    message = str(error)
    assert message.startswith('config.a.b is ') and len(message) < 400
    assert '--config.a.b=' in message and '\n' not in message


@pytest.mark.parametrize(
  ('text', 'old', 'named'),
  [
    ('nan', 0.5, 'NaN'),
    ('nan', 8, 'NaN'),
    ('1e999', 0.5, 'infinity'),
    ('-inf', 0.5, 'minus infinity'),
    ('1' + '0' * 400, 0.5, 'infinity'),
    ('(1, nan)', (1.0, 2.0), 'contains NaN'),
    ('True', 0.5, 'of type bool'),
    ('True', 8, 'of type bool'),
  ],
)
def test_what_is_no_finite_number_is_named(text, old, named):
  with pytest.raises(ValueError, match=named):
    override_value.parse(text, old, 'a.b')


def test_text_where_nothing_was_is_left_to_the_section():
  assert math.isnan(override_value.parse('nan', None, 'a.b'))
  assert override_value.parse('-' * 5000, None, 'a.b') == '-' * 5000
