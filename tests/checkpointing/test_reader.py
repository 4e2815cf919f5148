"""Which checkpoint is meant: a step, the newest, or the best."""

import json

import jax
import numpy as np
import pytest

from cdm.checkpointing import (
  checksums,
  model_check,
  reader,
  state_arrays,
  verification,
  writer,
)
from cdm.data.files import damaged_file

BEST = {'step': 4, 'metric': 'held_out/psnr', 'value': 20.5}


@pytest.fixture
def workdir(tmp_path):
  for step in (4, 10, 6):
    (tmp_path / 'checkpoints' / str(step)).mkdir(parents=True)
  (tmp_path / 'checkpoints' / 'best').write_text(
    json.dumps(BEST), encoding='utf-8'
  )
  return tmp_path


def test_a_step_the_newest_and_the_best_are_found(workdir):
  assert reader.resolve(workdir, 6) == 6
  assert reader.resolve(workdir) == 10
  assert reader.resolve(workdir, 'best') == 4
  assert reader.read_best(workdir) == BEST
  assert reader.complete_steps(workdir) == [4, 6, 10]


@pytest.mark.parametrize(
  ('at', 'content', 'error', 'message'),
  [
    (5, None, FileNotFoundError, r'step 5 in .*; there are \[4, 6, 10\]'),
    ('6', None, ValueError, "'6' of .*give a step, one of .*, or 'best'"),
    ('best', '', FileNotFoundError, '--config.eval.best=held_out/ema_loss'),
    ('best', '{"step": 4', damaged_file.DamagedFile, 'best is damaged.*Remove'),
    (
      'best',
      json.dumps(BEST | {'step': '4'}),
      damaged_file.DamagedFile,
      "'4', not an int",
    ),
    (
      'best',
      json.dumps(BEST | {'step': 5}),
      FileNotFoundError,
      'no checkpoint of step 5',
    ),
  ],
)
def test_what_is_not_there_is_named(workdir, at, content, error, message):
  path = workdir / 'checkpoints' / 'best'
  if content is not None:
    path.write_text(content, encoding='utf-8')
  if content == '':
    path.unlink()
  with pytest.raises(error, match=message):
    reader.resolve(workdir, at)


def test_without_checkpoints_nothing_is_found(tmp_path):
  with pytest.raises(FileNotFoundError, match='There is no checkpoint in'):
    reader.resolve(tmp_path, 'best')


def test_a_best_that_is_forgotten_is_not_on_record(tmp_path):
  """A run that goes back behind its best checkpoint loses it."""
  with writer.Checkpointer(tmp_path, keep=1) as checkpointer:
    for step in (1, 2, 3):
      checkpointer.save(step, {'a': step}, data_state={})
      checkpointer.wait()
      if step == 2:
        checkpointer.keep_best({'step': 2, 'metric': 'x', 'value': 0.5})
    assert checkpointer.steps() == [2, 3]
  with writer.Checkpointer(tmp_path, keep=1) as checkpointer:
    checkpointer.save(4, {'a': 4}, data_state={})
    checkpointer.wait()
    assert checkpointer.steps() == [2, 4]  # it is known after a restart too
    checkpointer.forget_after(2)
    assert reader.resolve(tmp_path, 'best') == 2
    checkpointer.forget_after(1)
    assert reader.read_best(tmp_path) is None


MODEL = {'params/w': (2, 3), 'ema_params/w': (2, 3), 'opt_state/mu/w': (2, 3)}


@pytest.mark.parametrize(
  ('stored', 'wanted', 'message'),
  [
    (
      MODEL | {'params/w': (2, 4)},
      MODEL,
      r'another model. First difference: params/w is \[2, 4\] in the '
      r'checkpoint and \[2, 3\] here',
    ),
    (
      MODEL,
      MODEL | {'params/v': (1,)},
      r'params/v is absent in the checkpoint and \[1\] here',
    ),
    (
      MODEL | {'params/v': (1,)},
      MODEL,
      r'params/v is \[1\] in the checkpoint and absent here',
    ),
    (
      MODEL | {'opt_state/mu/w': ()},
      MODEL,
      r'another optimizer. First difference: opt_state/mu/w is \[\]',
    ),
    (
      {'params/w': (2, 3)},
      {'ema_params/w': (2, 3)},
      r'holds no EMA parameters \(ema_params\)',
    ),
  ],
)
def test_the_first_array_that_differs_is_named(
  tmp_path, stored, wanted, message
):
  path = tmp_path / 'checkpoints' / '7'
  with pytest.raises(model_check.ModelMismatch, match=message) as caught:
    model_check.check_model(stored, wanted, path)
  assert str(path) in str(caught.value)


def test_fields_that_are_not_wanted_are_not_compared(tmp_path):
  model_check.check_model(MODEL, MODEL, tmp_path)
  model_check.check_model(MODEL, {'ema_params/w': (2, 3)}, tmp_path)
  model_check.check_model(MODEL | {'key': (9,)}, {'params/w': (2, 3)}, tmp_path)


def test_the_random_key_is_no_part_of_the_model():
  tree = {'params': {'w': np.zeros((2, 3))}, 'key': np.zeros(4)}
  assert reader.shapes(tree) == {'params/w': (2, 3)}


@pytest.mark.parametrize('content', [None, '', '{"a": 1', '[]'])
def test_a_checkpoint_without_sound_metadata_is_damaged(tmp_path, content):
  (tmp_path / 'a').write_text('x', encoding='utf-8')
  metadata = tmp_path / verification.METADATA
  metadata.write_text('{}', encoding='utf-8')
  checksums.write(tmp_path)
  assert verification.verify(tmp_path)
  if content is None:
    metadata.unlink()
  else:
    metadata.write_text(content, encoding='utf-8')
  said = 'is missing' if content is None else 'cannot be read'
  with pytest.raises(
    checksums.Damaged, match=f'{verification.METADATA} {said}'
  ):
    verification.verify(tmp_path)


def test_a_checkpoint_without_checksums_is_read_with_a_warning(
  tmp_path, caplog
):
  (tmp_path / verification.METADATA).write_text('{}', encoding='utf-8')
  assert not verification.verify(tmp_path)
  assert 'has no checksums, so it is read without a check' in caplog.text


def test_an_error_while_sound_arrays_are_read_is_not_called_damage(
  workdir, monkeypatch
):
  """As if Orbax had a fault of its own, or we had."""

  def broken(*_, **__):
    raise KeyError('bug')

  monkeypatch.setattr(state_arrays, '_read_share', broken)
  wanted = {'params/w': jax.ShapeDtypeStruct((2,), np.float32)}
  with pytest.raises(KeyError, match='bug'):
    reader.restore_arrays(workdir, wanted, step=4)
  with pytest.raises(damaged_file.DamagedFile, match='KeyError'):
    reader._restore(workdir, {'w': wanted['params/w']}, sound=False)
