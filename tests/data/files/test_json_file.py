"""What is on a disk is of the declared type, or refused in one sentence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from cdm.data.files import damaged_file, json_file
from cdm.distributed import exit_codes


class Inner(TypedDict):
  size: int
  note: NotRequired['str | None']


class Outer(TypedDict):
  name: str
  inner: list[Inner]
  pair: tuple[int, float]
  more: NotRequired[dict[str, Literal['a', 'b']]]


SOUND = {'name': 'x', 'inner': [{'size': 1, 'note': None}], 'pair': [1, 2]}


def test_a_value_of_the_declared_type_comes_back(tmp_path):
  path = tmp_path / 'x.json'
  for value in (SOUND, SOUND | {'more': {'k': 'a'}, 'unknown': [1]}):
    path.write_text(json.dumps(value), encoding='utf-8')
    assert json_file.read(path, Outer, remedy='') == value
  assert json_file.problem([1, 2.5, None], list[float | None]) is None
  assert json_file.problem([3, 4], tuple[int, ...]) is None
  assert json_file.problem({'a': 1, 'b': 2}, {'a': int}) is None
  assert json_file.problem({'anything': [object]}, Any) is None


@pytest.mark.parametrize(
  ('change', 'told'),
  [
    ({'name': 3}, r"its value\['name'\] is 3, not a text"),
    ({'name': None}, r"\['name'\] is None, not a text"),
    ({'inner': {}}, r"\['inner'\] is an object, not a list"),
    ({'inner': [{}]}, r"\['inner'\]\[0\] has no 'size'"),
    ({'inner': [{'size': True}]}, r"\[0\]\['size'\] is True, not an integer"),
    ({'inner': [{'size': 1.5}]}, r'is 1.5, not an integer'),
    ({'inner': [{'size': 2**63}]}, 'a number of more than 64 bits'),
    ({'inner': [{'size': 1, 'note': 2}]}, r"\['note'\] is 2, not .*"),
    ({'pair': [1]}, r"\['pair'\] has 1 entries, not 2"),
    ({'pair': [1, '2']}, r"\['pair'\]\[1\] is '2', not a number"),
    ({'more': {'k': 'c'}}, r"is 'c', not one of \['a', 'b'\]"),
  ],
)
def test_another_type_is_refused_by_its_place(tmp_path, change, told):
  path = tmp_path / 'x.json'
  path.write_text(json.dumps(SOUND | change), encoding='utf-8')
  with pytest.raises(ValueError, match=rf'x.json is damaged: .*{told}. Fetch'):
    json_file.read(path, Outer, remedy='Fetch it.')


def test_a_mapping_is_an_object_and_a_sequence_a_list():
  assert json_file.problem({'a': 1}, Mapping[str, int]) is None
  assert json_file.problem([1, 2], Sequence[int]) is None
  for value, declared, told in (
    ([1], Mapping[str, int], 'x is a list, not an object'),
    ({'a': 1}, Sequence[int], 'x is an object, not a list'),
    ({'a': 'b'}, Mapping[str, int], "x['a'] is 'b', not an integer"),
    ([1, 'b'], Sequence[int], "x[1] is 'b', not an integer"),
  ):
    assert json_file.problem(value, declared, 'x') == told


def test_whole_numbers_of_64_bits_are_the_largest():
  for value in (2**63 - 1, -(2**63)):
    assert json_file.problem(value, int) is None
    assert json_file.problem(value, float) is None
  for value in (2**63, -(2**63) - 1):
    assert 'more than 64 bits' in json_file.problem(value, int)
    assert 'more than 64 bits' in json_file.problem(value, float)


def test_a_long_value_is_told_in_part():
  told = json_file.problem('x' * 58, int, 'v')
  assert told == f"v is '{'x' * 58}', not an integer"
  told = json_file.problem('x' * 59, int, 'v')
  assert told == f"v is '{'x' * 56}..., not an integer"


def test_a_hundred_levels_are_read_and_one_more_is_not(tmp_path):
  for levels in (100, 101):
    data = b'[' * levels + b']' * levels
    if levels == 100:
      json_file.parse(data, Any, name='x', remedy='')
      continue
    with pytest.raises(ValueError, match='nested more than 100 times'):
      json_file.parse(data, Any, name='x', remedy='')


@pytest.mark.parametrize(
  ('data', 'told'),
  [
    (b'', 'Expecting value at character 0'),
    (b'{"a": ', 'Expecting value at character 6'),
    (b'"\xe9"', 'byte 1 is not UTF-8'),
    (b'[' * 100_000, 'nested too deeply'),
    (b'{"a":' * 100_000, 'nested too deeply'),
    (b'9' * 100_000, 'a number is too long'),
    (b'[' * 500 + b']' * 500, 'nested more than 100 times'),
  ],
)
def test_what_is_no_json_is_a_data_error(tmp_path, data, told):
  path = tmp_path / 'x.json'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=rf'x.json is damaged.*{told}') as caught:
    json_file.read(path, Any, remedy='Fetch it.')
  assert exit_codes.classify(caught.value) is exit_codes.DATA_ERROR


def test_errors_of_data_are_told_without_knowing_exit_codes():
  damaged = damaged_file.DamagedFile('x')
  assert exit_codes.classify(damaged) is exit_codes.DATA_ERROR
  assert isinstance(damaged, ValueError)
