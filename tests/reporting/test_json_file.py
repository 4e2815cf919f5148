"""What is on a disk is of the declared type, or refused in one sentence."""

import ast
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from cdm.data import json_file as copy_of_data
from cdm.data.damaged_file import DamagedFile
from cdm.distributed import exit_codes
from cdm.reporting import json_file

both = pytest.mark.parametrize('module', [json_file, copy_of_data])


class Inner(TypedDict):
  size: int
  note: NotRequired['str | None']


class Outer(TypedDict):
  name: str
  inner: list[Inner]
  pair: tuple[int, float]
  more: NotRequired[dict[str, Literal['a', 'b']]]


SOUND = {'name': 'x', 'inner': [{'size': 1, 'note': None}], 'pair': [1, 2]}


def test_both_copies_are_the_same_code():
  def code(module):
    body = ast.parse(inspect.getsource(module)).body[1:]
    return [ast.dump(n) for n in body if not isinstance(n, ast.ImportFrom)]

  assert code(json_file) == code(copy_of_data)


@both
def test_a_value_of_the_declared_type_comes_back(tmp_path, module):
  path = tmp_path / 'x.json'
  for value in (SOUND, SOUND | {'more': {'k': 'a'}, 'unknown': [1]}):
    path.write_text(json.dumps(value))
    assert module.read(path, Outer, remedy='') == value
  assert module.problem([1, 2.5, None], list[float | None]) is None
  assert module.problem([3, 4], tuple[int, ...]) is None
  assert module.problem({'a': 1, 'b': 2}, {'a': int}) is None
  assert module.problem({'anything': [object]}, Any) is None


@both
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
def test_another_type_is_refused_by_its_place(tmp_path, module, change, told):
  path = tmp_path / 'x.json'
  path.write_text(json.dumps(SOUND | change))
  with pytest.raises(ValueError, match=rf'x.json is damaged: .*{told}. Fetch'):
    module.read(path, Outer, remedy='Fetch it.')


@both
def test_a_mapping_is_an_object_and_a_sequence_a_list(module):
  assert module.problem({'a': 1}, Mapping[str, int]) is None
  assert module.problem([1, 2], Sequence[int]) is None
  for value, declared, told in (
    ([1], Mapping[str, int], 'x is a list, not an object'),
    ({'a': 1}, Sequence[int], 'x is an object, not a list'),
    ({'a': 'b'}, Mapping[str, int], "x['a'] is 'b', not an integer"),
    ([1, 'b'], Sequence[int], "x[1] is 'b', not an integer"),
  ):
    assert module.problem(value, declared, 'x') == told


@both
def test_whole_numbers_of_64_bits_are_the_largest(module):
  for value in (2**63 - 1, -(2**63)):
    assert module.problem(value, int) is None
    assert module.problem(value, float) is None
  for value in (2**63, -(2**63) - 1):
    assert 'more than 64 bits' in module.problem(value, int)
    assert 'more than 64 bits' in module.problem(value, float)


@both
def test_a_long_value_is_told_in_part(module):
  assert module.problem('x' * 58, int, 'v') == f"v is '{'x' * 58}', not an " + (
    'integer'
  )
  told = module.problem('x' * 59, int, 'v')
  assert told == f"v is '{'x' * 56}..., not an integer"


@both
def test_a_hundred_levels_are_read_and_one_more_is_not(tmp_path, module):
  for levels in (100, 101):
    data = b'[' * levels + b']' * levels
    if levels == 100:
      module.parse(data, Any, name='x', remedy='')
      continue
    with pytest.raises(ValueError, match='nested more than 100 times'):
      module.parse(data, Any, name='x', remedy='')


@both
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
def test_what_is_no_json_is_a_data_error(tmp_path, module, data, told):
  path = tmp_path / 'x.json'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=rf'x.json is damaged.*{told}') as caught:
    module.read(path, Any, remedy='Fetch it.')
  assert exit_codes.classify(caught.value) is exit_codes.DATA_ERROR


def test_errors_of_data_are_told_without_knowing_exit_codes():
  assert exit_codes.classify(DamagedFile('x')) is exit_codes.DATA_ERROR
  damaged = exit_codes.DamagedFile('x')
  assert exit_codes.classify(damaged) is exit_codes.DATA_ERROR
  assert isinstance(damaged, ValueError)
