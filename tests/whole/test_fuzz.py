"""The short version of `benchmarks/fuzz.py`: some inputs for every reader."""

import pytest

from benchmarks import fuzz, fuzz_inputs, fuzz_readers

INPUTS = 20


@pytest.mark.parametrize('name', fuzz_readers.READERS)
def test_damaged_files_are_read_or_refused_in_one_sentence(
  name, tmp_path, capfd
):
  reader = fuzz_readers.READERS[name](tmp_path)
  for n in range(INPUTS):
    data = fuzz_inputs.damaged(reader.seeds, 0, name, n)
    outcome, text = fuzz.outcome(reader, reader.place(data))
    assert outcome in ('refused', 'accepted'), f'{name}, input {n}: {text}'


def test_inputs_depend_on_seed_reader_and_index_only():
  seeds = [b'{"a": [1, 2, 3]}', b'x' * 100]

  def inputs(*given):
    return [fuzz_inputs.damaged(seeds, *given, n) for n in range(50)]

  assert inputs(0, 'a') == inputs(0, 'a')
  assert inputs(0, 'a') != inputs(1, 'a') != inputs(0, 'b')


def test_a_fault_is_counted_with_its_traceback(tmp_path):
  def fails(path):
    return {}[path]

  reader = fuzz_readers.Reader(tmp_path / 'x', [b'1'], fails)
  outcome, text = fuzz.outcome(reader, reader.place(b'1'))
  assert outcome == 'tracebacks' and 'KeyError' in text
  row = {'reader': 'a', 'count': 2, 'counts': {'tracebacks': 1, 'refused': 1}}
  assert fuzz.table([row])[-1] == '| **all** | 2 | 1 | 0 | 1 | 0 | 0 |'
