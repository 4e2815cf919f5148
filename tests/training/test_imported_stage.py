"""What `cdm export` wrote comes back, as a work directory or as a start."""

import types

import jax
import numpy as np
import pytest
from support import smoke_runs

from cdm.checkpointing import packed_stage, stage_notes
from cdm.config import datasets, loader
from cdm.data import class_names
from cdm.sampling import exported_stage
from cdm.training import imported_stage, init_from, program

NOTES = {'credits': 'Somebody, CC BY'}


@pytest.fixture(scope='module')
def exported():
  """-> (the run, {dtype: the file that was written of it})."""
  run, files = smoke_runs.trained() / 'sr', {}
  for dtype in packed_stage.DTYPES:
    files[dtype] = smoke_runs.temporary() / f'sr_{dtype}.safetensors'
    exported_stage.export(run, files[dtype], dtype=dtype, notes=NOTES)
  return run, files


def test_a_file_becomes_a_work_directory_with_its_bits(
  exported, tmp_path, capfd
):
  """Of float16 the values that float16 has; and back into a file."""
  run, files = exported
  workdir = tmp_path / 'run'
  words = f'--from=cdm {files["float16"]} --out={workdir}'.split()
  assert smoke_runs.cdm('import', *words) == 0
  told = capfd.readouterr().out
  assert "from step 4 of 'smoke_sr', sha256" in told and 'credits' in told
  state, trained = smoke_runs.state(workdir, 0), smoke_runs.state(run, 4)
  own = {k.partition('/')[2]: v for k, v in trained.items() if 'ema_' in k}
  assert own and int(state['step']) == 0
  for name, value in own.items():
    half = value.astype(np.float16).astype(np.float32)
    for field in ('params', 'ema_params'):
      np.testing.assert_array_equal(state[f'{field}/{name}'], half)
  assert loader.read_json(workdir / 'config.json') == loader.read_json(
    run / 'config.json'
  )
  assert class_names.read(workdir) == class_names.read(run)
  assert stage_notes.read(workdir) == NOTES
  again = exported_stage.export(
    workdir, tmp_path / 'b.safetensors', dtype='float16'
  )
  first = packed_stage.read(files['float16'])
  assert (again.sha256, again.notes) == (first.sha256, first.notes)
  assert smoke_runs.cdm('import', *words) == 2  # it holds a checkpoint now


def test_the_bits_of_float32_are_those_of_the_average(exported, tmp_path):
  run, files = exported
  made = imported_stage.read(files['float32'], tmp_path, name='mine')
  assert made.config.name == 'mine'
  trained = smoke_runs.state(run, 4)
  for path, leaf in jax.tree.leaves_with_path(made.params):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    np.testing.assert_array_equal(leaf, trained[f'ema_params/{name}'])


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ([('model.features', '16')], 'another network. First difference: conv_in'),
    ([('model.featrues', '16')], 'featrues'),
  ],
)
def test_a_config_of_another_network_is_refused(
  exported, tmp_path, overrides, message
):
  file = exported[1]['float16']
  with pytest.raises(ValueError, match=message):
    imported_stage.read(file, tmp_path, overrides=overrides)


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['x.safetensors'], 'There is no file'),
    (['config.json'], 'is not a .safetensors file'),
    ([], 'needs the file that `cdm export` wrote'),
    (['x.safetensors', '--image_size=8'], '--image_size is in the file'),
  ],
)
def test_what_is_no_stage_is_refused(tmp_path, capfd, words, message):
  out = tmp_path / 'run'
  assert smoke_runs.cdm('import', '--from=cdm', *words, f'--out={out}') == 2
  assert message in capfd.readouterr().err
  assert not out.exists()


def student(teacher):
  """-> a packed student, as its file describes it, without arrays."""
  c = loader.read_json(smoke_runs.trained() / 'base' / 'config.json')
  c = c.copy_and_resolve_references().unlock()
  c.method = dict(kind='progressive_distillation', teacher=teacher)
  return types.SimpleNamespace(config=loader.to_json(c.lock()))


def test_a_student_needs_its_teacher(tmp_path, monkeypatch):
  file = tmp_path / 'student.safetensors'
  monkeypatch.setattr(
    packed_stage, 'read', lambda path: student(f'{tmp_path}/gone@8')
  )
  with pytest.raises(
    ValueError, match='holds a student.*method.teacher.*gone.*as --workdir'
  ):
    imported_stage.read(file, tmp_path / 'run')


# As the weights that a new run starts from.


def found(path, workdir, **overrides):
  values = smoke_runs.SMALL | {'train.init_from': path, 'mesh.fsdp': 2}
  values |= {key.replace('__', '.'): value for key, value in overrides.items()}
  c = loader.load(
    smoke_runs.CONFIGS / 'smoke_sr.py', [(k, str(v)) for k, v in values.items()]
  )
  return init_from.find_start(
    c, workdir, program.assemble(c), datasets.open_source(c.train_data)
  )


def test_a_run_starts_from_a_file_as_from_its_run(exported, tmp_path):
  run, files = exported
  file = files['float32']
  start, other = found(file, tmp_path), found(run, tmp_path)
  assert start.config.train.init_from == f'{file}@4'
  sha256 = packed_stage.read(file).sha256
  assert start.config.train.init_from_sha256 == sha256
  assert str(file) in start.lines[0] and 'EMA' in start.lines[0]
  mine, theirs = (one.weights.read().arrays for one in (start, other))
  assert mine.keys() == theirs.keys() and len(mine) > 20
  for name, value in mine.items():
    assert value.sharding == theirs[name].sharding
    np.testing.assert_array_equal(value, theirs[name])
  again = found(f'{file}@4', tmp_path, train__init_from_sha256=sha256)
  assert again.config.train == start.config.train


@pytest.mark.parametrize(
  ('end', 'overrides', 'message'),
  [
    ('@3', {}, 'the file holds step 4 alone; leave the step out'),
    (
      '',
      {'train__init_params': 'raw'},
      "is 'raw', but .* one average",
    ),
    ('', {'train__init_from_sha256': 'a' * 64}, 'it is another checkpoint'),
    (
      '',
      {'model__features': 16},
      'differs: of another shape: .*config',
    ),
  ],
)
def test_a_start_that_is_not_meant_is_refused(
  exported, tmp_path, end, overrides, message
):
  with pytest.raises(ValueError, match=message):
    found(f'{exported[1]["float16"]}{end}', tmp_path, **overrides)


def test_a_file_of_another_program_is_no_start(tmp_path):
  from safetensors import numpy

  path = tmp_path / 'other.safetensors'
  with pytest.raises(ValueError, match='init_from: There is no file'):
    found(path, tmp_path)
  numpy.save_file({'a': np.zeros(3)}, path, {'format': 'pt'})
  with pytest.raises(ValueError, match='holds no stage of cdm'):
    found(path, tmp_path)
