"""Checkpoints: whole, of this model, readable anywhere, or a clear error."""

import contextlib
import errno
import logging
import os
import pwd
import re
import shutil
import threading
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import small_disks, tiny_run

from cdm.checkpointing import checksums, half_written, reader
from cdm.checkpointing import writer as checkpoint
from cdm.data.files import damaged_file, transient_errors
from cdm.training import state


def abstract(mesh=None, rules=(), init=tiny_run.init, tx=None):
  return tiny_run.abstract_state(
    init,
    tx or tiny_run.adam(),
    key=jax.random.key(0),
    mesh=mesh or tiny_run.mesh(8),
    rules=rules,
  )


def made(mesh=None, rules=(), seed=0):
  return tiny_run.init_state(
    tiny_run.init,
    tiny_run.adam(),
    key=jax.random.key(seed),
    mesh=mesh or tiny_run.mesh(8),
    rules=rules,
  )


def write(workdir, steps, *, keep=3, change=lambda s, step: s):
  """Saves the initial state, its step set, at each of some steps."""
  with checkpoint.Checkpointer(
    workdir, config=tiny_run.CONFIG, keep=keep
  ) as saver:
    saver.write_config()
    for step in steps:
      now = made(seed=step).replace(step=jnp.int32(step))
      saver.save(
        step,
        change(now, step),
        data_state={'next': step, 'where': ['a', 1.5, None]},
        window={'loss': [0.1, 3.0]},
      )


def read(workdir, **fields):
  with checkpoint.Checkpointer(workdir) as saver:
    return saver.restore_latest(abstract(**fields))


def test_everything_comes_back_as_it_was_saved(tmp_path):
  write(tmp_path, [5])
  found = read(tmp_path)
  tiny_run.assert_same(found.state, made(seed=5).replace(step=jnp.int32(5)))
  assert found.step == 5
  assert found.data_state == {'next': 5, 'where': ['a', 1.5, None]}
  assert found.window == {'loss': [0.1, 3.0]}
  assert reader.read_config(tmp_path) == tiny_run.CONFIG
  assert (tmp_path / 'config.json').read_text(
    encoding='utf-8'
  ) == tiny_run.CONFIG


def test_an_empty_work_directory_has_nothing_to_restore(tmp_path):
  assert read(tmp_path / 'new') is None


def test_the_last_few_stay(tmp_path):
  write(tmp_path, [1, 2, 3, 4], keep=2)
  assert reader.complete_steps(tmp_path) == [3, 4]
  assert read(tmp_path).step == 4


def test_what_is_saved_is_the_state_of_that_moment(tmp_path):
  """Saving goes on in the background while the state is donated away."""
  now, update = made(), tiny_run.step()
  before = jax.tree.map(jnp.copy, (now.params, now.opt_state))
  from cdm.distributed import device_mesh

  with checkpoint.Checkpointer(tmp_path) as saver:
    saver.save(0, now, data_state={})
    for k in range(5):
      batch = device_mesh.shard_batch(tiny_run.batch_at(k), tiny_run.mesh(8))
      now, _ = update(now, batch)
  found = read(tmp_path).state
  tiny_run.assert_same((found.params, found.opt_state), before)


@pytest.mark.parametrize(
  ('shape', 'rules'),
  [((1, 1, 1), ()), ((2, 4, 1), tiny_run.RULES), ((1, 2, 2), ())],
)
def test_restoring_follows_the_mesh_of_today(tmp_path, shape, rules):
  """Placement comes from the target, not from what was saved."""
  write(tmp_path, [7])
  target = abstract(tiny_run.mesh(*shape), rules)
  found = read(tmp_path, mesh=tiny_run.mesh(*shape), rules=rules).state
  tiny_run.assert_same(found, made(seed=7).replace(step=jnp.int32(7)))
  assert state.shardings_of(found) == state.shardings_of(target)


def test_the_average_is_read_alone_and_placed_where_asked(tmp_path):
  average = {'params': np.float32(3), 'ema': np.float32(4)}

  def change(now, step):
    return now.replace(
      ema_params=jax.tree.map(lambda p: p + average['ema'], now.params)
    )

  write(tmp_path, [2, 9], change=change)
  shapes = jax.eval_shape(tiny_run.init, jax.random.key(0))
  params, step = reader.restore_ema(tmp_path, shapes)
  assert step == 9
  expected = jax.tree.map(lambda p: p + average['ema'], made(seed=9).params)
  tiny_run.assert_same(params, expected)
  placed = abstract(tiny_run.mesh(2, 4), tiny_run.RULES).ema_params
  params, step = reader.restore_ema(tmp_path, placed, step=2)
  assert step == 2
  assert params['up']['kernel'].sharding == placed['up']['kernel'].sharding


def test_a_config_is_read_from_the_checkpoint_it_made(tmp_path):
  write(tmp_path, [2])
  with checkpoint.Checkpointer(tmp_path, config='{"seed": 1}') as saver:
    saver.save(3, made(), data_state={})
  assert reader.read_config(tmp_path) == '{"seed": 1}'
  assert reader.read_config(tmp_path, step=2) == tiny_run.CONFIG


@pytest.mark.parametrize('sums', [True, False])
def test_a_config_is_compared_with_its_checksum_before_it_is_read(
  tmp_path, sums
):
  write(tmp_path, [5])
  newest = tmp_path / 'checkpoints' / '5'
  (newest.parent / '²').mkdir()  # is no step
  truncate(newest / 'config' / 'metadata')
  if not sums:
    (newest / 'checksums.json').unlink()
  told = 'config/metadata has .* bytes' if sums else 'Error'
  with pytest.raises(damaged_file.DamagedFile, match=told) as caught:
    reader.read_config(tmp_path)
  assert caught.match('5 is damaged: .*Restore a copy of it')
  (newest / 'checksums.json').write_text(
    '{"config/metadata": [1]}', encoding='utf-8'
  )
  with pytest.raises(damaged_file.DamagedFile, match='checksums.json cannot'):
    reader.read_config(tmp_path)


def test_a_missing_checkpoint_says_where_it_looked(tmp_path):
  with pytest.raises(FileNotFoundError, match='no checkpoint in .*; train'):
    reader.read_config(tmp_path)
  write(tmp_path, [2])
  with pytest.raises(FileNotFoundError, match=r'of step 3 in .* are \[2\]'):
    reader.restore_ema(tmp_path, {}, step=3)


def wider(key):
  return tiny_run.init(key, features=6)


def deeper(key):
  return tiny_run.init(key) | {'middle': {'kernel': jnp.zeros((8, 8))}}


def shallower(key):
  return {'down': tiny_run.init(key)['down']}


@pytest.mark.parametrize(
  ('init', 'message'),
  [
    (wider, r'params/down/bias is \[8\] in the checkpoint and \[6\] here'),
    (deeper, r'params/middle/kernel is absent in the checkpoint and \[8, 8\]'),
    (shallower, r'params/up/bias is \[48\] in the checkpoint and absent here'),
  ],
)
def test_another_model_is_refused_by_its_first_difference(
  tmp_path, init, message
):
  write(tmp_path, [2])
  with pytest.raises(ValueError, match='another model.*' + message) as caught:
    read(tmp_path, init=init)
  assert 'config.json' in str(caught.value)
  shapes = jax.eval_shape(init, jax.random.key(0))
  with pytest.raises(ValueError, match='another model.*ema_' + message):
    reader.restore_ema(tmp_path, shapes)
  assert reader.complete_steps(tmp_path) == [2]  # left where it was


def test_parameters_may_be_left_out_by_their_name(tmp_path):
  write(tmp_path, [2])
  shapes = jax.eval_shape(shallower, jax.random.key(0))
  params, _ = reader.restore_ema(tmp_path, shapes, unread='up')
  expected = made(seed=2).ema_params['down']
  jax.tree.map(np.testing.assert_array_equal, params['down'], expected)
  with pytest.raises(ValueError, match='absent here'):
    reader.restore_ema(tmp_path, shapes, unread='u')


def test_another_optimizer_is_refused_and_called_that(tmp_path):
  write(tmp_path, [2])
  with pytest.raises(ValueError, match='another optimizer.*opt_state/'):
    read(tmp_path, tx=tiny_run.adam(clip_norm=None))


def test_a_checkpoint_without_an_average_is_refused(tmp_path):
  write(tmp_path, [2], change=lambda now, step: now.replace(ema_params={}))
  with pytest.raises(ValueError, match='holds no EMA'):
    read(tmp_path)
  shapes = jax.eval_shape(tiny_run.init, jax.random.key(0))
  with pytest.raises(ValueError, match='holds no EMA'):
    reader.restore_ema(tmp_path, shapes)


def test_a_half_written_checkpoint_is_named_and_ignored(tmp_path, caplog):
  write(tmp_path, [2, 3])
  directory = tmp_path / 'checkpoints'
  half = directory / '3.orbax-checkpoint-tmp'
  os.rename(directory / '3', half)
  shutil.rmtree(half / 'data')
  assert reader.complete_steps(tmp_path) == [2]
  shapes = jax.eval_shape(tiny_run.init, jax.random.key(0))
  assert reader.restore_ema(tmp_path, shapes)[1] == 2
  with caplog.at_level(logging.WARNING):
    assert read(tmp_path).step == 2
  assert '3.orbax-checkpoint-tmp: the run was killed' in caplog.text
  write(tmp_path, [3])  # its step can be saved again
  assert read(tmp_path).step == 3


def values(path):
  """The largest file with values of the state."""
  return max(path.glob('state/**/d/*'), key=lambda file: file.stat().st_size)


def truncate(file):
  with open(file, 'r+b') as f:
    f.truncate(file.stat().st_size // 2)


def flip(file, where=0.5):
  """Turns one bit of a file over."""
  content = bytearray(file.read_bytes())
  content[int(where * len(content))] ^= 1
  file.write_bytes(content)


# What happens to the newest checkpoint -> what the run says of it.
DAMAGES = {
  'values cut off': (
    lambda p: truncate(values(p)),
    r'\S+/d/\w+ has \d+ of \d+ bytes',
  ),
  'values empty': (
    lambda p: values(p).write_bytes(b''),
    r'\S+ has 0 of \d+ bytes',
  ),
  'values lost': (lambda p: values(p).unlink(), r'\S+/d/\w+ is missing'),
  'values flipped': (
    lambda p: flip(values(p)),
    r'\S+/d/\w+ has another CRC-32 than',
  ),
  'state lost': (lambda p: shutil.rmtree(p / 'state'), r'state/\S+ is missing'),
  'metadata garbage': (
    lambda p: (p / 'state' / '_METADATA').write_text('{"tr', encoding='utf-8'),
    r'state/_METADATA has 4 of',
  ),
  'position lost': (lambda p: shutil.rmtree(p / 'data'), r'data/\S+ is miss'),
  'position flipped': (
    lambda p: flip(p / 'data' / 'metadata'),
    r'data/metadata has another CRC-32 than',
  ),
  'config flipped': (lambda p: flip(p / 'config' / 'metadata'), r'config/meta'),
  'commit lost': (
    lambda p: (p / '_CHECKPOINT_METADATA').unlink(),
    r'_CHECKPOINT_METADATA is missing',
  ),
  'checksums garbage': (
    lambda p: (p / 'checksums.json').write_text('[]', encoding='utf-8'),
    r'checksums.json cannot be read',
  ),
  'nothing left': (
    lambda p: (shutil.rmtree(p), p.mkdir()),
    r'_CHECKPOINT_METADATA is missing',
  ),
}


# TensorStore answers a loop that Orbax has closed; harmless, and not ours.
abandoned_reads = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


@abandoned_reads
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(
  tmp_path, damage, caplog, monkeypatch
):
  """For a user whom the system cannot name, too, as in containers."""

  def unknown(number):
    raise KeyError(f'uid not found: {number}')

  monkeypatch.setattr(pwd, 'getpwuid', unknown)
  write(tmp_path, [2, 3])
  happens, told = DAMAGES[damage]
  happens(tmp_path / 'checkpoints' / '3')
  with caplog.at_level(logging.WARNING):
    found = read(tmp_path)
  assert re.search(rf'of step 3 is damaged \(Damaged: {told}', caplog.text)
  assert found.step == 2
  tiny_run.assert_same(found.state, made(seed=2).replace(step=jnp.int32(2)))
  assert (tmp_path / 'checkpoints_damaged' / '3').is_dir()
  write(tmp_path, [3])
  assert read(tmp_path).step == 3


@pytest.mark.parametrize('damage', ['values flipped', 'values cut off'])
def test_nothing_is_drawn_from_a_damaged_checkpoint(tmp_path, damage):
  write(tmp_path, [2, 3])
  happens, told = DAMAGES[damage]
  happens(tmp_path / 'checkpoints' / '3')
  shapes = jax.eval_shape(tiny_run.init, jax.random.key(0))
  with pytest.raises(ValueError, match=f'3 is damaged: .*{told}.*start cdm tr'):
    reader.restore_ema(tmp_path, shapes)
  assert reader.restore_ema(tmp_path, shapes, step=2)[1] == 2


@abandoned_reads
@pytest.mark.parametrize('damage', ['values cut off', 'state lost', None])
def test_without_checksums_orbax_must_find_the_damage(tmp_path, damage, caplog):
  write(tmp_path, [2, 3])
  newest = tmp_path / 'checkpoints' / '3'
  (newest / 'checksums.json').unlink()
  if damage:
    # All of them: Orbax keeps the values of small arrays twice.
    for file in newest.glob('state/**/d/*'):
      truncate(file)
  with caplog.at_level(logging.WARNING):
    assert read(tmp_path).step == (2 if damage else 3)
  assert '3 has no checksums, so it is read without a check' in caplog.text


def test_a_sound_checkpoint_is_not_set_aside_for_a_fault_of_ours(tmp_path):
  write(tmp_path, [2, 3])
  with checkpoint.Checkpointer(tmp_path) as saver:
    with mock.patch.object(saver, '_restore', side_effect=KeyError('bug')):
      with pytest.raises(KeyError, match='bug'):
        saver.restore_latest(abstract())
  assert reader.complete_steps(tmp_path) == [2, 3]


def test_the_last_scheduled_checkpoint_stays_however_often_a_run_is_stopped(
  tmp_path,
):
  with checkpoint.Checkpointer(
    tmp_path, keep=1, keep_every_steps=10, save_every_steps=4
  ) as saver:
    for step in (4, 8, 9, 10, 11):
      saver.save(step, made(), data_state={})
  assert reader.complete_steps(tmp_path) == [8, 10, 11]


def test_later_checkpoints_can_be_forgotten_and_made_again(tmp_path):
  with checkpoint.Checkpointer(tmp_path, keep=9) as saver:
    for step in (2, 4, 5):
      saver.save(step, made(seed=step), data_state={})
    saver.forget_after(2)
    assert saver.steps() == [2]
    saver.save(4, made(seed=7), data_state={})
  assert reader.complete_steps(tmp_path) == [2, 4]
  tiny_run.assert_same(read(tmp_path).state, made(seed=7))


@abandoned_reads
def test_if_none_can_be_read_nothing_is_moved_or_forgotten(tmp_path):
  write(tmp_path, [2, 3])
  for step in (2, 3):
    truncate(values(tmp_path / 'checkpoints' / str(step)))
  with pytest.raises(ValueError, match='No checkpoint of .* can be read'):
    read(tmp_path)
  assert reader.complete_steps(tmp_path) == [2, 3]


def test_a_work_directory_that_cannot_be_written_is_one_clear_error(tmp_path):
  (tmp_path / 'file').write_text('in the way', encoding='utf-8')
  with pytest.raises(OSError, match='Cannot write .*file/run: Not a directory'):
    checkpoint.Checkpointer(tmp_path / 'file' / 'run')


@pytest.mark.skipif(os.getuid() == 0, reason='root may write everywhere')
def test_a_read_only_work_directory_is_one_clear_error(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(OSError, match='Permission denied.*--workdir'):
    checkpoint.Checkpointer(tmp_path / 'run')


@abandoned_reads
def test_a_full_disk_is_one_clear_error_and_spares_older_checkpoints(
  tmp_path, caplog
):
  """The kernel refuses to let a file grow, as it does when the disk is full."""
  write(tmp_path, [2])
  with pytest.raises(OSError, match=r'of step 3 .*too large.*\[2\] are whole'):
    with checkpoint.Checkpointer(tmp_path) as saver:
      with small_disks.files_of_at_most(1000):
        saver.save(3, made(), data_state={})
        saver.wait()
  assert caplog.text == ''  # Orbax would tell it six times
  assert read(tmp_path).step == 2


def test_what_a_failed_save_still_writes_does_not_spoil_the_next(tmp_path):
  left = tmp_path / 'checkpoints' / '3.orbax-checkpoint-tmp' / 'state'
  left.mkdir(parents=True)
  until = time.monotonic() + 0.5

  def write_on():
    while time.monotonic() < until:
      with contextlib.suppress(FileNotFoundError):
        (left / f'{time.monotonic_ns()}').touch()

  writer = threading.Thread(target=write_on)
  writer.start()
  time.sleep(0.1)
  write(tmp_path, [3])
  writer.join()
  assert read(tmp_path).step == 3


@pytest.fixture
def small_disk(tmp_path):
  """A file system of its own, of one megabyte."""
  with small_disks.mounted(tmp_path / 'disk', '1m') as place:
    yield place


@abandoned_reads
def test_a_disk_that_is_really_full_spares_older_checkpoints(small_disk):
  write(small_disk, [2])
  (small_disk / 'ballast').write_bytes(b'x' * 100)
  free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
  (small_disk / 'ballast').write_bytes(b'x' * (free - 16_384))
  message = (
    r'Cannot write the checkpoint of step 3 in .*No space left.*\[2\] are'
  )
  with pytest.raises(OSError, match=message):
    write(small_disk, [3])
  assert read(small_disk).step == 2
  os.remove(small_disk / 'ballast')
  write(small_disk, [3])
  assert read(small_disk).step == 3


def test_a_checkpoint_tells_the_versions_that_made_it(tmp_path):
  write(tmp_path, [2])
  text = (tmp_path / 'checkpoints/2/_CHECKPOINT_METADATA').read_text(
    encoding='utf-8'
  )
  assert f'"jax": "{jax.__version__}"' in text


def test_a_folder_that_is_still_written_to_is_removed_in_the_end(
  tmp_path, monkeypatch
):
  """A failed save may go on in its threads for a while."""
  calls, remove = [], shutil.rmtree

  def busy(path):
    calls.append(path)
    if len(calls) < 3:
      raise OSError(errno.ENOTEMPTY, 'Directory not empty')
    remove(path)

  monkeypatch.setattr(half_written.shutil, 'rmtree', busy)
  (tmp_path / '7').mkdir()
  half_written.delete(tmp_path / '7')
  assert len(calls) == 3 and not (tmp_path / '7').exists()
  half_written.delete(tmp_path / '7')  # it is gone already
  assert len(calls) == 3


@pytest.mark.parametrize('code', [errno.EACCES, errno.ENOTEMPTY])
def test_a_folder_that_cannot_be_removed_is_an_error(
  tmp_path, monkeypatch, code
):
  def fails(_):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(half_written.shutil, 'rmtree', fails)
  monkeypatch.setattr(half_written, '_REMOVAL_SECONDS', -1)
  with pytest.raises(OSError, match=os.strerror(code)):
    half_written.delete(tmp_path)


@pytest.mark.parametrize('failures', [1, 10**6], ids=['for a moment', 'long'])
def test_a_storage_that_fails_damages_no_checkpoint(
  tmp_path, monkeypatch, failures
):
  monkeypatch.setenv('CDM_STORAGE_SECONDS', '0.5')
  write(tmp_path, [10, 20])
  read, left = checksums._read_sum, [failures]

  def fail(path):
    if '/20/' in str(path) and left[0]:
      left[0] -= 1
      raise OSError(errno.EIO, 'Input/output error', str(path))
    return read(path)

  monkeypatch.setattr(checksums, '_read_sum', fail)
  with checkpoint.Checkpointer(tmp_path, config=tiny_run.CONFIG) as saver:
    if failures == 1:
      assert saver.restore_latest(abstract()).step == 20
    else:
      with pytest.raises(transient_errors.NotAnswering, match='Reading .*/20/'):
        saver.restore_latest(abstract())
    assert saver.steps() == [10, 20]
