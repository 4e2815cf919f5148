"""A run starts from the weights of another: which, and what it records."""

import hashlib
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from support import smoke_runs

from cdm.config import datasets, loader
from cdm.data.files import damaged_file
from cdm.training import init_from, init_record, program
from cdm.training import state as states

CONFIG = smoke_runs.CONFIGS / 'smoke.py'


@pytest.fixture(scope='module')
def source():
  return smoke_runs.trained() / 'base'


def config(path=None, **overrides):
  values = smoke_runs.SMALL | {
    key.replace('__', '.'): value for key, value in overrides.items()
  }
  if path is not None:
    values['train.init_from'] = path
  return loader.load(CONFIG, [(k, str(v)) for k, v in values.items()])


def find(c, workdir):
  """-> (Start, Program) on eight devices, the large arrays cut in two."""
  assembled = program.assemble(c)
  data = datasets.open_source(c.train_data)
  return init_from.find_start(c, workdir, assembled, data), assembled


def begun(c, workdir):
  """-> the state that a run starts with."""
  start, assembled = find(c, workdir)
  state = states.make_state(
    assembled.built.method.init,
    assembled.tx,
    key=assembled.key,
    abstract=assembled.state,
    read_weights=None if start.weights is None else start.weights.read,
  )
  for leaf, wanted in zip(
    jax.tree.leaves(state), jax.tree.leaves(assembled.state), strict=True
  ):
    assert leaf.sharding == wanted.sharding
  return dict(
    (jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  )


@pytest.mark.parametrize(
  ('params', 'field'), [('ema', 'ema_params'), ('raw', 'params')]
)
def test_weights_and_their_average_begin_as_the_ones_of_the_source(
  source, tmp_path, params, field
):
  """On eight devices, though one device saved them; the optimizer is new."""
  expected = smoke_runs.state(source, 4)
  state = begun(
    config(source, mesh__fsdp=2, train__init_params=params), tmp_path / 'run'
  )
  assert int(state['step']) == 0
  for name, value in state.items():
    kind, _, rest = name.partition('/')
    if kind in ('params', 'ema_params'):
      np.testing.assert_array_equal(
        np.asarray(value), expected[f'{field}/{rest}'], err_msg=name
      )
    elif kind == 'opt_state':
      assert not np.asarray(value).any(), name


def test_classes_of_other_names_and_number_begin_at_the_mean(source, tmp_path):
  """The source knows gratings 0 to 3; here 0 and 1, and four that are new."""
  c = config(
    source, train_data__num_classes=2, model__num_classes=6, mesh__fsdp=2
  )
  table = np.asarray(begun(c, tmp_path)['params/label/embedding'])
  old = smoke_runs.state(source, 4)['ema_params/label/embedding']
  mean = np.broadcast_to(old[:4].mean(0), (4, old.shape[1]))
  np.testing.assert_array_equal(table[:2], old[:2])
  np.testing.assert_allclose(table[2:6], mean, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(table[6], old[4])


def test_the_config_records_the_folder_the_step_and_a_hash(source, tmp_path):
  sums = (source / 'checkpoints' / '2' / 'checksums.json').read_bytes()
  start, _ = find(config(f'{source}@2'), tmp_path)
  train = start.config.train
  assert train.init_from == f'{source}@2'
  assert train.init_from_sha256 == hashlib.sha256(sums).hexdigest()
  again, _ = find(
    config(f'{source}@2', train__init_from_sha256=train.init_from_sha256),
    tmp_path,
  )
  assert again.config.train == train


def test_a_config_without_a_source_is_recorded_as_it_is(tmp_path):
  c = config()
  start, _ = find(c, tmp_path)
  assert start == init_from.Start(c)
  assert 'init_from' not in start.config.train


def test_a_run_killed_before_its_first_checkpoint_starts_from_the_same(
  source, tmp_path
):
  """The source has gone on since."""
  moving, workdir = tmp_path / 'source', tmp_path / 'run'
  shutil.copytree(source, moving)
  shutil.rmtree(moving / 'checkpoints' / '4')
  first, _ = find(config(moving), workdir)
  workdir.mkdir()
  (workdir / 'config.json').write_text(
    loader.to_json(first.config), encoding='utf-8'
  )
  shutil.copytree(source / 'checkpoints' / '4', moving / 'checkpoints' / '4')
  second, _ = find(config(moving), workdir)
  assert second.config == first.config
  assert first.config.train.init_from == f'{moving}@2'
  (workdir / 'config.json').unlink()
  third, _ = find(config(moving), workdir)
  assert third.config.train.init_from == f'{moving}@4'


def test_what_the_network_lacks_is_named_or_initialized(source, tmp_path):
  two = {'model__multipliers': '(1,2)'}
  with pytest.raises(ValueError, match='whose network differs: ') as error:
    find(config(source, **two), tmp_path)
  text = str(error.value)
  assert 'missing in the source: down_4_block_0 (' in text
  assert '--config.train.init_missing=initialize' in text
  assert not list(tmp_path.iterdir())
  start, _ = find(
    config(source, train__init_missing='initialize', **two), tmp_path
  )
  [line] = [line for line in start.lines if 'missing in the source' in line]
  assert 'down_8_to_4' in line and 'more' not in line


@pytest.mark.parametrize(
  ('given', 'told'),
  [
    ('{source}@3', r'no checkpoint of step 3 in .*; there are \[2, 4\]'),
    ('{source}/nothing', 'there is no checkpoint in .*nothing'),
    ('{source}@newest', 'give WORKDIR, WORKDIR@STEP or WORKDIR@best'),
  ],
)
def test_a_source_that_is_not_there_is_refused(source, tmp_path, given, told):
  with pytest.raises(ValueError, match=told):
    find(config(given.format(source=source)), tmp_path)


def test_the_best_checkpoint_is_started_from(source, tmp_path):
  compared = tmp_path / 'source'
  shutil.copytree(source, compared)
  best = {'step': 2, 'metric': 'held_out/loss', 'value': 0.5}
  (compared / 'checkpoints' / 'best').write_text(
    json.dumps(best), encoding='utf-8'
  )
  start, _ = find(config(f'{compared}@best'), tmp_path / 'run')
  assert start.config.train.init_from == f'{compared}@2'
  (compared / 'checkpoints' / 'best').unlink()
  with pytest.raises(ValueError, match='is known as the best'):
    find(config(f'{compared}@best'), tmp_path / 'run')


def test_another_checkpoint_than_the_hash_says_is_refused(source, tmp_path):
  with pytest.raises(ValueError, match='it is another checkpoint'):
    find(config(source, train__init_from_sha256='0' * 64), tmp_path)


def test_a_damaged_source_is_refused_and_left_as_it_is(source, tmp_path):
  broken = tmp_path / 'source'
  shutil.copytree(source, broken)
  state = broken / 'checkpoints' / '4' / 'state'
  largest = max(
    state.rglob('*'), key=lambda p: p.is_file() and p.stat().st_size
  )
  largest.write_bytes(b'?' + largest.read_bytes()[1:])
  before = smoke_runs.snapshot(broken)
  with pytest.raises(
    damaged_file.DamagedFile, match=r'checkpoints/4 is damaged'
  ):
    find(config(broken), tmp_path / 'run')
  assert smoke_runs.snapshot(broken) == before


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('init_params', 'mean'),
    ('init_missing', 'skip'),
    ('init_from_sha256', 'x'),
  ],
)
def test_an_unknown_choice_is_refused(key, value):
  with pytest.raises(ValueError, match=f'config.train.{key} is {value!r}'):
    program.assemble(config(**{f'train__{key}': value}))


def test_names_with_an_at_sign_are_folders_where_they_exist(tmp_path):
  folder = tmp_path / 'a@b'
  folder.mkdir()
  assert init_record.parse(str(folder)) == (folder, None)
  assert init_record.parse(f'{folder}@7') == (folder, 7)
  assert init_record.parse(f'{folder}@best') == (folder, 'best')


def test_a_run_is_resumed_though_its_source_is_gone(source, tmp_path, capsys):
  """Through the front door; it remembers, and says what it does not do."""
  moving, workdir = tmp_path / 'source', tmp_path / 'run'
  shutil.copytree(source, moving)
  smoke_runs.train(
    'smoke', workdir, train__num_steps=2, train__init_from=moving
  )
  first = json.loads((workdir / 'config.json').read_text(encoding='utf-8'))[
    'train'
  ]
  assert first['init_from'] == f'{moving}@4'
  assert 'starting from the EMA parameters of step 4' in capsys.readouterr().err
  shutil.rmtree(moving)
  smoke_runs.train('smoke', workdir, train__init_from=moving)
  out, err = capsys.readouterr()
  assert 'config.train.init' not in out + err  # as before
  smoke_runs.train('smoke', workdir, train__init_from=source)
  assert f'but this run began from {moving}@4' in capsys.readouterr().err
  last = json.loads((workdir / 'config.json').read_text(encoding='utf-8'))[
    'train'
  ]
  assert {k: v for k, v in last.items() if k.startswith('init')} == {
    k: v for k, v in first.items() if k.startswith('init')
  }


def test_a_refused_start_leaves_no_trace(tmp_path, capsys):
  workdir = pathlib.Path(tmp_path) / 'run'
  words = [f'--config.{k}={v}' for k, v in smoke_runs.SMALL.items()]
  code = smoke_runs.cdm(
    *('train', f'--config={CONFIG}', f'--workdir={workdir}', *words),
    f'--config.train.init_from={tmp_path / "nothing"}',
  )
  assert code == 2
  assert 'there is no checkpoint in' in capsys.readouterr().err
  assert not workdir.exists()
