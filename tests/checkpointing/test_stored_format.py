"""A checkpoint of another format is refused in words, and left where it is."""

import json
import types

import jax
import jax.numpy as jnp
import pytest
from support import tiny_run

from cdm.checkpointing import reader, stored_format, writer
from cdm.distributed import source_commit

ABSTRACT = {'key': jax.random.key(0), 'mesh': tiny_run.mesh(8)}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """-> work directory with a checkpoint of step 2."""
  workdir = tmp_path_factory.mktemp('run')
  tx = tiny_run.adam()
  state = tiny_run.init_state(tiny_run.init, tx, **ABSTRACT)
  with writer.Checkpointer(workdir, config=tiny_run.CONFIG) as saver:
    saver.save(2, state.replace(step=jnp.int32(2)), data_state={})
  return workdir


@pytest.fixture
def noted(saved):
  """-> f(**changes) of what the checkpoint notes; None removes a key."""
  path = saved / 'checkpoints/2/_CHECKPOINT_METADATA'
  before = path.read_text(encoding='utf-8')

  def change(**changes):
    metadata = json.loads(before)
    notes = metadata['custom_metadata'] | changes
    metadata['custom_metadata'] = {
      k: v for k, v in notes.items() if v is not None
    }
    path.write_text(json.dumps(metadata), encoding='utf-8')

  yield change
  path.write_text(before, encoding='utf-8')


def ways_to_read(workdir):
  """-> {name: function that reads the checkpoint in one of three ways}."""
  abstract = tiny_run.abstract_state(tiny_run.init, tiny_run.adam(), **ABSTRACT)

  def continued():
    with writer.Checkpointer(workdir) as saver:
      return saver.restore_latest(abstract)

  return {
    'continued': continued,
    'drawn with': lambda: reader.restore_ema(workdir, abstract.params),
    'started from': lambda: reader.shapes_on_disk(reader.folder(workdir) / '2'),
  }


@pytest.mark.parametrize('way', ['continued', 'drawn with', 'started from'])
def test_another_format_is_refused_with_the_commit_that_reads_it(
  saved, noted, way
):
  noted(format=stored_format.FORMAT + 1, commit='c0ffee')
  message = r'/2 has format 2 and was .* of commit c0ffee; .* reads format 1\.'
  with pytest.raises(stored_format.OtherFormat, match=message):
    ways_to_read(saved)[way]()
  # It is not damaged, so it stays.
  assert reader.complete_steps(saved) == [2]
  assert not (saved / writer.DAMAGED).exists()


@pytest.mark.parametrize('way', ['continued', 'drawn with', 'started from'])
def test_another_commit_of_the_same_format_continues(saved, noted, way):
  noted(commit='c0ffee')
  assert ways_to_read(saved)[way]() is not None


def test_a_checkpoint_from_before_there_was_a_number_is_read(saved, noted):
  noted(format=None, commit=None)
  assert ways_to_read(saved)['continued']().step == 2


def test_a_checkpoint_notes_its_format_and_commit(saved):
  text = (saved / 'checkpoints/2/_CHECKPOINT_METADATA').read_text(
    encoding='utf-8'
  )
  found = types.SimpleNamespace(**json.loads(text)['custom_metadata'])
  assert found.format == stored_format.FORMAT
  assert found.commit == source_commit.commit()
