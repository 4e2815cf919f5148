"""`cdm distill` through the front door: two students, one after the other."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from jax.extend import core as jax_core
from support import smoke_runs, tiny_run
from support.smoke_runs import state

from cdm.checkpointing import writer
from cdm.config import datasets, loader
from cdm.distributed import device_mesh, partitioning
from cdm.planning import lowering
from cdm.training import frozen_state, program, teacher

CONFIG = smoke_runs.CONFIGS / 'smoke.py'
STUDENT = smoke_runs.SMALL | {
  'method.kind': 'progressive_distillation',
  'method.num_steps': 2,
  'method.prediction': 'v',
  'method.weighting': 'truncated_snr',
  'method.target': 'x_0',
  'method.label_dropout': 0.1,
  'train.sample_every_steps': 0,
}


def words(**overrides):
  overrides = {k.replace('__', '.'): v for k, v in overrides.items()}
  return [f'--config.{k}={v}' for k, v in (STUDENT | overrides).items()]


def distil(workdir, given=None, **overrides):
  """Runs `cdm distill` on one device. Returns the exit code."""
  given = smoke_runs.trained() / 'base' if given is None else given
  with smoke_runs.on(1):
    return smoke_runs.cdm(
      'distill',
      f'--config={CONFIG}',
      f'--teacher={given}',
      f'--workdir={workdir}',
      *words(**overrides),
    )


@functools.cache
def whole():
  """-> folder of both students, of a command that nothing interrupted."""
  folder = smoke_runs.temporary() / 'students'
  assert distil(folder, eval__every_steps=4) == 0
  return folder


def config(given='', **overrides):
  values = STUDENT | {'method.teacher': given, 'sampler.kind': 'ddim'}
  values |= {
    'sampler.eta': '0.0',
    'sampler.grid.kind': 'trailing',
    'sampler.grid.num_steps': 2,
  }
  values |= {k.replace('__', '.'): v for k, v in overrides.items()}
  return loader.load(CONFIG, [(k, str(v)) for k, v in values.items()])


def test_each_student_has_its_teacher_in_its_state_unchanged():
  """The first one the network that is given, the second one the first."""
  givers = {2: smoke_runs.trained() / 'base', 1: whole() / 'steps_2'}
  for steps, giver in givers.items():
    expected, found = state(giver, 4), state(whole() / f'steps_{steps}', 4)
    names = [name for name in found if name.startswith('frozen/')]
    assert names
    for name in names:
      source = name.replace('frozen/', 'ema_params/')
      np.testing.assert_array_equal(found[name], expected[source])
      own = found[name.replace('frozen/', 'params/')]
      assert not np.array_equal(own, expected[source]) or not own.any()


def test_each_student_has_an_ordinary_config_that_tells_where_it_is_from():
  base, first = smoke_runs.trained() / 'base', whole() / 'steps_2'
  for steps, giver in ((2, base), (1, first)):
    folder = whole() / f'steps_{steps}'
    saved = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    assert saved['name'] == 'smoke'
    assert saved['sampler']['kind'] == 'ddim'
    assert saved['sampler']['grid'] == {'kind': 'trailing', 'num_steps': steps}
    assert saved['method']['num_steps'] == steps
    assert saved['method']['teacher'] == f'{giver}@4'
    assert saved['train']['init_from'] == f'{giver}@4'
    assert len(saved['method']['teacher_sha256']) == 64
    assert saved['method']['teacher_sampler']['clip'] == 'static'


def test_a_student_learns_and_is_evaluated_as_any_run():
  for steps in (2, 1):
    rows = smoke_runs.record(whole() / f'steps_{steps}')
    assert [row['step'] for row in rows] == [3, 4, 4]
    assert 0 < rows[-1]['held_out/ema_loss'] < 10


def test_the_command_goes_on_where_it_was_bit_for_bit(
  tmp_path, monkeypatch, capfd
):
  """It breaks off in the second student; the first is left as it is."""
  save, folder = writer.Checkpointer.save, tmp_path / 'students'

  def breaks(self, step, *args, **given):
    if step == 4 and (folder / 'steps_1').exists():
      self.wait()  # for step 2, which is still being written
      raise ValueError('the disk is gone')
    return save(self, step, *args, **given)

  monkeypatch.setattr(writer.Checkpointer, 'save', breaks)
  with pytest.raises(ValueError, match='the disk is gone'):
    distil(folder)
  assert (folder / 'steps_1' / 'checkpoints' / '2').exists()
  assert not (folder / 'steps_1' / 'checkpoints' / '4').exists()
  monkeypatch.undo()
  capfd.readouterr()
  assert distil(folder) == 0
  told = capfd.readouterr().err
  assert 'steps_2 is complete' in told
  assert 'continuing from the checkpoint of step 2' in told
  for steps in (2, 1):
    expected = state(whole() / f'steps_{steps}', 4)
    found = state(folder / f'steps_{steps}', 4)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
      np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_student_of_one_step_draws_as_any_stage(tmp_path):
  out = tmp_path / 'out'
  with smoke_runs.on(1):
    assert not smoke_runs.cdm(
      'sample',
      f'--config={CONFIG}',
      f'--workdir={whole() / "steps_1"}',
      '--num=4',
      '--seed=0',
      f'--out={out}',
    )
  assert len(list(out.rglob('*.png'))) >= 4
  manifest = json.loads((out / 'sampling.json').read_text(encoding='utf-8'))
  assert manifest['stages'][0]['sampler']['grid']['num_steps'] == 1


# --- Its teacher


def test_a_run_goes_on_without_its_teacher(tmp_path):
  """The state has it: only what was recorded of it is looked at."""
  folder = tmp_path / 'run'
  shutil.copytree(whole() / 'steps_1', folder)
  begun = loader.read_json(folder / 'config.json')
  steps = {'method__num_steps': 1, 'sampler__grid__num_steps': 1}
  for given in ('', whole() / 'steps_2'):
    found = teacher.resolved(config(given, **steps), folder)
    assert found.method.teacher == begun.method.teacher
    assert found.method.teacher_sampler == begun.method.teacher_sampler
  with pytest.raises(ValueError, match='began with the teacher'):
    teacher.resolved(config(tmp_path, **steps), folder)
  with pytest.raises(ValueError, match=r'num_steps is 2, but the run .* 1'):
    teacher.resolved(config(), folder)


def test_a_run_killed_before_its_first_checkpoint_takes_the_same(tmp_path):
  """Its teacher has gone on since; only config.json was written."""
  base, folder = smoke_runs.trained() / 'base', tmp_path / 'run'
  folder.mkdir()
  begun = teacher.resolved(config(f'{base}@2'), folder)
  assert begun.method.teacher == begun.train.init_from == f'{base}@2'
  (folder / 'config.json').write_text(loader.to_json(begun), encoding='utf-8')
  again = teacher.resolved(config(base), folder)
  assert again.method.teacher == f'{base}@2'
  assert teacher.resolved(config(base), tmp_path).method.teacher == f'{base}@4'


def test_a_student_may_start_from_other_weights(tmp_path):
  base = smoke_runs.trained() / 'base'
  found = teacher.resolved(config(base, train__init_from='other'), tmp_path)
  assert found.train.init_from == 'other'


def test_what_is_no_teacher_is_refused(tmp_path):
  base = smoke_runs.trained() / 'base'
  with pytest.raises(ValueError, match='teacher is empty'):
    teacher.resolved(config(), tmp_path / 'run')
  with pytest.raises(ValueError, match='There is no checkpoint'):
    teacher.resolved(config(tmp_path / 'none'), tmp_path / 'run')
  with pytest.raises(ValueError, match=r'features: 8 -> 16'):
    teacher.resolved(config(base, model__features=16), tmp_path / 'run')
  with pytest.raises(ValueError, match=r'prediction: v -> x_0'):
    teacher.resolved(config(base, method__prediction='x_0'), tmp_path / 'run')
  with pytest.raises(ValueError, match='sha256 is abc'):
    teacher.resolved(
      config(base, method__teacher_sha256='abc'), tmp_path / 'run'
    )


def test_steps_that_are_not_halves_are_refused(tmp_path, capsys):
  assert distil(tmp_path / 'students', method__num_steps=3) == 2
  assert 'half as many as its teacher' in capsys.readouterr().err


# --- The mesh


@functools.cache
def stepped(data, fsdp, tensor, accumulation=1):
  """-> (losses, parameters, teacher) of two steps in a layout."""
  c = config(
    mesh__data=data,
    mesh__fsdp=fsdp,
    mesh__tensor=tensor,
    train__accumulation=accumulation,
    optimizer__eps=1e-3,
  )
  made = program.assemble(c, devices=jax.devices()[: data * fsdp * tensor])
  with smoke_runs.on(1):
    giver = smoke_runs.trained() / 'base'

  def read(abstract):
    return teacher.frozen_reader(config(f'{giver}@4'))(abstract)

  state = frozen_state.make(
    made.built.method.init,
    made.tx,
    None,
    read,
    key=made.key,
    abstract=made.state,
  )
  rows = device_mesh.local_rows(made.mesh, c.train.batch_size)
  batches = datasets.training_batches(
    c, datasets.open_source(c.train_data), seed=1, rows=rows
  )
  losses = []
  for _ in range(2):
    batch = device_mesh.shard_batch(next(batches), made.mesh)
    state, scalars = made.step(state, batch)
    losses.append(float(scalars['loss']))
  batches.close()
  placed = jax.tree.map(lambda leaf: leaf.sharding, state.frozen)
  assert placed == jax.tree.map(lambda leaf: leaf.sharding, made.state.frozen)
  return losses, *jax.tree.map(np.asarray, (state.params, state.frozen))


@pytest.mark.parametrize('layout', [(2, 2, 2), (1, 4, 1, 2)], ids=str)
def test_a_mesh_changes_no_number(layout):
  """Large arrays of student and teacher are cut; microbatches too."""
  expected, found = stepped(1, 1, 1), stepped(*layout)
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
  tiny_run.assert_same(found[2], expected[2])
  for a, b in zip(
    *(jax.tree.leaves(x[1]) for x in (found, expected)), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-4 * max(np.abs(b).max(), 1e-3))


def gathers_in_branches(jaxpr, inside=False):
  """-> how many arrays are gathered in branches that a value chooses."""
  found = 0
  for equation in jaxpr.eqns:
    found += inside and equation.primitive.name.startswith('all_gather')
    within = inside or equation.primitive.name == 'cond'
    for inner in jax_core.jaxprs_in_params(equation.params):
      found += gathers_in_branches(inner, within)
  return found


@pytest.mark.parametrize('accumulation', [1, 2])
def test_no_device_gathers_a_teacher_that_others_leave_alone(accumulation):
  """It would wait for them for ever.

  Guidance on some noise levels only acts on those of one device's images, and
  not on another's.
  """
  fields = {'guidance_weight': 2.0, 'guidance_interval': (-30.0, -3.0)}
  c = config(
    method__teacher_sampler=fields,
    mesh__data=1,
    mesh__fsdp=2,
    train__accumulation=accumulation,
  )
  made = program.assemble(c, devices=jax.devices()[:2])
  traced = made.step.trace(made.state, made.batch)
  assert 'all_gather' in str(traced.jaxpr)
  assert not gathers_in_branches(traced.jaxpr.jaxpr)


def test_a_plan_counts_the_teacher():
  planned = lowering.train_step(config(), jax.devices()[:1])
  c = config()
  made = program.assemble(c, devices=jax.devices()[:1])
  size = partitioning.device_bytes(made.state.frozen)
  assert planned.arguments['teacher'] == size > 0
  forward = made.built.trace()[1]
  # Three for the student, two steps of the teacher.
  assert planned.model_flops == 5 * c.train.batch_size * forward
