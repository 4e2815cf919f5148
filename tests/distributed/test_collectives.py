"""What process 0 finds out, or fails at, is the same in every process."""

import numpy as np
import pytest

from cdm.distributed import collectives, exit_codes


@pytest.fixture
def in_process(monkeypatch):
  """Returns a function that calls `call_in_first` in process 0 or 1.

  With `through`, another function of the module that asks process 0.
  """
  monkeypatch.setattr(collectives, 'process_count', lambda: 2)
  sent = []

  def broadcast(data):
    if collectives.is_first():
      sent[:] = [data]
    return sent[0]

  monkeypatch.setattr(collectives, '_broadcast_bytes', broadcast)

  def call(index, function, through=collectives.call_in_first, **options):
    monkeypatch.setattr(collectives, 'is_first', lambda: index == 0)
    return through(function, **options)

  return call


def test_only_process_0_looks_and_all_get_what_it_found(in_process):
  calls = []
  found = [
    in_process(n, lambda n=n: calls.append(n) or [1, {'é': None}])
    for n in range(2)
  ]
  assert calls == [0]
  assert found == [[1, {'é': None}]] * 2


def fails(error):
  def function():
    raise error

  return function


def test_an_expected_error_is_the_same_everywhere(in_process):
  """A type of its own, so a caller may handle it in every process."""
  for n in range(2):
    with pytest.raises(FileNotFoundError, match='no checkpoint in there'):
      in_process(
        n,
        fails(FileNotFoundError('no checkpoint in there')),
        errors=(FileNotFoundError, ValueError),
      )


def test_any_other_error_ends_all_with_the_same_code(in_process):
  with pytest.raises(PermissionError):
    in_process(0, fails(PermissionError(13, 'Permission denied', 'run')))
  with pytest.raises(
    collectives.FirstProcessFailed, match='process 0: run: Permission denied'
  ) as caught:
    in_process(1, fails(AssertionError('is never called')))
  assert exit_codes.classify(caught.value) == exit_codes.BAD_INPUT


def test_arrays_are_made_in_process_0_and_sent_to_all(in_process, monkeypatch):
  made, sent = [], []

  def broadcast(value):
    if collectives.is_first():
      sent.append(value)
      return value
    assert (value.shape, value.dtype) == (sent[0].shape, sent[0].dtype)
    assert not value.any()
    return sent.pop(0)

  monkeypatch.setattr(collectives, 'broadcast_from_first', broadcast)
  images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
  labels = np.array([5, -1], np.int32)

  def read():
    made.append(collectives.is_first())
    return images, labels

  found = [in_process(n, read, collectives.arrays_from_first) for n in range(2)]
  assert made == [True]
  for arrays in found:
    np.testing.assert_array_equal(arrays[0], images)
    np.testing.assert_array_equal(arrays[1], labels)


def test_a_run_of_one_process_just_calls():
  with pytest.raises(KeyError):
    collectives.call_in_first(fails(KeyError('x')))
  assert collectives.call_in_first(lambda: (1, 2)) == (1, 2)
