"""A save that fails is made again; only in the end is it an error."""

import errno
import logging
import os

import jax.numpy as jnp
import numpy as np
import pytest

from cdm.checkpointing import reader, save_patience, state_arrays, writer


@pytest.fixture
def fail(monkeypatch):
  """-> fail(code, times): so many of the next saves fail with this error."""
  merge, left = state_arrays.merge, []

  def failing(path):
    if left:
      code = left.pop()
      raise OSError(code, os.strerror(code))
    return merge(path)

  monkeypatch.setattr(state_arrays, 'merge', failing)
  return lambda code, times=1: left.extend([code] * times)


def opened(workdir, **options):
  options = {'retry_seconds': 60.0} | options
  return writer.Checkpointer(workdir, config='{}', **options)


def save(saver, step):
  state = {'ema_params': {'w': jnp.full((4, 3), float(step))}}
  saver.save(step, state, data_state={'next': step})
  saver.wait()
  return saver.steps()


def test_a_save_that_failed_is_due_again_until_one_is_complete(
  tmp_path, fail, caplog
):
  with opened(tmp_path) as saver:
    assert save(saver, 10) == [10]
    assert not saver.retry_is_due() and saver.last_pause() is None
    fail(errno.EIO)
    with caplog.at_level(logging.WARNING):
      assert save(saver, 20) == [10]
    assert (
      'checkpoint of step 20 could not be written (Input/out' in caplog.text
    )
    assert 'for up to 1 minutes in all; 10 steps (' in caplog.text
    assert saver.retry_is_due()
    assert save(saver, 21) == [10, 21]
    assert not saver.retry_is_due()
  assert reader.complete_steps(tmp_path) == [10, 21]
  assert sorted(os.listdir(tmp_path / 'checkpoints')) == ['10', '21']


def test_no_save_is_due_while_one_is_written_or_in_a_pause(tmp_path, fail):
  with opened(tmp_path) as saver:
    fail(errno.EIO, 2)
    save(saver, 1)
    assert saver.retry_is_due()
    save(saver, 2)
    assert not saver.retry_is_due()
    assert saver.last_pause() == save_patience.FIRST_PAUSE_S
    save(saver, 3)  # one that is scheduled does not wait


@pytest.mark.parametrize('steps', [(), (10,)])
def test_after_the_stated_time_it_is_an_error_that_says_what_is_lost(
  tmp_path, fail, steps
):
  saver = opened(tmp_path, retry_seconds=0.0)
  for step in steps:
    save(saver, step)
  fail(errno.EIO)
  with pytest.raises(OSError, match='of step 35 .*: Input/output error') as e:
    save(saver, 35)
  assert f'{35 - sum(steps)} steps (' in str(e.value)
  assert ('checkpoints of steps [10] are whole' in str(e.value)) == bool(steps)
  assert e.value.__cause__.errno == errno.EIO
  saver.close()  # It has been told once.


def test_a_fault_of_the_program_is_not_tried_again(tmp_path, monkeypatch):
  def faulty(path):
    raise KeyError('bug')

  monkeypatch.setattr(state_arrays, 'merge', faulty)
  saver = opened(tmp_path)
  with pytest.raises(KeyError, match='bug'):
    save(saver, 1)


@pytest.mark.parametrize(
  ('code', 'keep', 'best', 'left'),
  [
    (errno.ENOSPC, 2, None, [20]),  # 10 would go when 30 is complete
    (errno.EDQUOT, 2, None, [20]),
    (errno.EIO, 2, None, [10, 20]),  # it needs no space
    (errno.ENOSPC, 3, None, [10, 20]),  # all would stay
    (errno.ENOSPC, 1, None, [20]),  # the newest stays in any case
    (errno.ENOSPC, 2, 10, [10, 20]),
  ],
)
def test_on_a_full_disk_what_would_go_anyway_goes_first(
  tmp_path, fail, code, keep, best, left
):
  with opened(tmp_path, keep=3) as saver:
    for step in (10, 20):
      save(saver, step)
  with opened(tmp_path, keep=keep) as saver:
    if best is not None:
      saver.keep_best({'step': best, 'metric': 'm', 'value': 1.0})
    fail(code)
    assert save(saver, 30) == left
    assert reader.complete_steps(tmp_path) == left
    kept = {*[*left, 31][-keep:], best} - {None}
    assert save(saver, 31) == sorted(kept)
  assert reader.complete_steps(tmp_path) == sorted(kept)


def test_a_disk_that_has_space_again_saves_the_run(tmp_path):
  from support import small_disks

  with opened(tmp_path) as saver:
    with small_disks.files_of_at_most(100):
      assert save(saver, 3) == []
    assert saver.retry_is_due()
    assert save(saver, 4) == [4]
  state, _ = reader.restore_ema(
    tmp_path, {'w': np.zeros((4, 3), np.float32)}, step=4
  )
  np.testing.assert_array_equal(state['w'], 4.0)


def test_an_old_checkpoint_that_cannot_be_deleted_fails_no_save(
  tmp_path, monkeypatch, caplog
):
  from cdm.checkpointing import half_written

  def stays(path):
    raise OSError(errno.EIO, 'Input/output error')

  with opened(tmp_path, keep=1) as saver:
    save(saver, 1)
    monkeypatch.setattr(half_written, 'delete', stays)
    with caplog.at_level(logging.WARNING):
      assert save(saver, 2) == [2]
  assert 'Cannot delete the checkpoints of steps [1]: ' in caplog.text
  # What is left of it does not count as a checkpoint.
  assert reader.complete_steps(tmp_path) == [2]


def test_a_checkpoint_is_never_written_over(tmp_path):
  with opened(tmp_path) as saver:
    save(saver, 1)
    with pytest.raises(ValueError, match='has a checkpoint of step 1'):
      save(saver, 1)
