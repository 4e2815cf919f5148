"""A host whose storage lags waits for what process 0 sees, and not for ever."""

import threading
import time

import pytest
from etils import epath

from cdm.checkpointing import visible_files
from cdm.distributed import exit_codes


@pytest.fixture
def second_of_two(monkeypatch):
  monkeypatch.setattr(visible_files.collectives, 'is_first', lambda: False)
  monkeypatch.setattr(visible_files.collectives, 'process_count', lambda: 2)


def test_process_0_never_waits(tmp_path):
  visible_files.wait_for(epath.Path(tmp_path / 'missing'))


def test_a_host_waits_until_it_sees_the_checkpoint(tmp_path, second_of_two):
  late = threading.Timer(1.0, (tmp_path / '4').mkdir)
  late.start()
  began = time.monotonic()
  visible_files.wait_for(epath.Path(tmp_path / '4'))
  assert time.monotonic() - began >= 0.9
  late.join()


def test_a_host_that_never_sees_it_ends_with_a_code_that_starts_again(
  tmp_path, second_of_two, monkeypatch
):
  monkeypatch.setenv('CDM_VISIBLE_SECONDS', '0.2')
  with pytest.raises(
    OSError, match='/4 is there for process 0, but .*CDM_VISIBLE_SECONDS'
  ) as caught:
    visible_files.wait_for(epath.Path(tmp_path / '4'))
  assert exit_codes.classify(caught.value) is exit_codes.NO_STORAGE
  assert exit_codes.NO_STORAGE.code == exit_codes.PREEMPTED.code


@pytest.mark.parametrize('after', [0.0, 0.1, None])
def test_what_another_has_written_is_seen_or_is_not(
  tmp_path, monkeypatch, after
):
  monkeypatch.setattr(visible_files, 'POLL_S', 0.01)
  path = epath.Path(tmp_path / 'written')
  if after is not None:
    threading.Timer(after, path.touch).start()
  assert visible_files.appears(path, 0.3 if after is None else 60) == (
    after is not None
  )
