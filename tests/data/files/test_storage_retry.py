"""What fails for a while is tried again; what stays wrong is said, once."""

import errno
import os
import time

import pytest

from cdm.data.files import storage_retry, transient_errors
from cdm.distributed import exit_codes


def failing(times, code=errno.EIO):
  """-> (action that fails so many times and then returns 7, its calls)."""
  calls = []

  def action():
    calls.append(time.monotonic())
    if len(calls) <= times:
      raise OSError(code, os.strerror(code), '/data/shard-3')
    return 7

  return action, calls


@pytest.fixture
def seconds(monkeypatch):
  """-> seconds(n): for how long a failing action is tried again."""
  return lambda n: monkeypatch.setenv(storage_retry.VARIABLE, str(n))


def test_what_fails_for_a_while_returns_what_it_would_have(seconds, caplog):
  seconds(4)
  action, calls = failing(3)
  assert storage_retry.retried(action, 'Reading record 5') == 7
  assert len(calls) == 4
  gaps = [later - now for now, later in zip(calls, calls[1:], strict=False)]
  assert gaps[0] < gaps[2]  # 0.5 and 2 s, each by a quarter more or less
  told = caplog.messages
  assert len(told) == 3
  assert told[0].startswith(
    "Reading record 5 failed (OSError: [Errno 5] Input/output error: '/data/"
  )


def test_what_stays_wrong_ends_with_a_code_that_starts_again(seconds):
  seconds(0.5)
  action, calls = failing(10**6)
  began = time.monotonic()
  with pytest.raises(
    transient_errors.NotAnswering, match='Reading record 5 failed again and ag'
  ) as caught:
    storage_retry.retried(action, 'Reading record 5')
  assert time.monotonic() - began <= 0.5 and len(calls) > 2
  assert 'shard-3' in str(caught.value) and '\n' not in str(caught.value)
  assert exit_codes.classify(caught.value) is exit_codes.NO_STORAGE


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.ENOENT, errno.EACCES])
def test_what_a_restart_cannot_mend_is_raised_at_once(code):
  action, calls = failing(10**6, code)
  with pytest.raises(OSError, match='shard-3') as caught:
    storage_retry.retried(action, 'Reading record 5')
  assert len(calls) == 1
  assert exit_codes.classify(caught.value) is exit_codes.BAD_INPUT


def test_a_full_disk_is_waited_for_where_that_is_asked(seconds):
  seconds(0.5)
  action, calls = failing(2, errno.ENOSPC)
  assert storage_retry.retried(action, 'Writing', until_space=True) == 7
  action, calls = failing(10**6, errno.ENOSPC)
  with pytest.raises(OSError, match='No space left') as caught:
    storage_retry.retried(action, 'Writing', until_space=True)
  assert len(calls) > 2
  assert exit_codes.classify(caught.value) is exit_codes.BAD_INPUT


def test_what_was_tried_again_inside_is_not_tried_again_outside(seconds):
  seconds(0.3)
  action, calls = failing(10**6)
  with pytest.raises(transient_errors.NotAnswering):
    storage_retry.retried(
      lambda: storage_retry.retried(action, 'Reading', seconds=0.1), 'Outside'
    )
  assert calls[-1] - calls[0] < 0.2


@pytest.mark.parametrize('text', ['soon', '0', '-1', 'inf', 'nan'])
def test_the_variable_is_a_number_of_seconds(seconds, text):
  seconds(text)
  with pytest.raises(ValueError, match='^CDM_STORAGE_SECONDS is .*seconds'):
    storage_retry.patience()
