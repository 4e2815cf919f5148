"""A sweep compiles once, and draws again only what a setting changes."""

import dataclasses

import numpy as np
import pytest
from support import smoke_runs

from cdm.checkpointing import reader
from cdm.config import redrawn_sampler
from cdm.evaluation import image_source, sweep
from cdm.evaluation.image_selection import Selection
from cdm.sampling import cascade, kept_images

CASCADE = smoke_runs.CONFIGS / 'smoke_cascade.py'
NUM = 3


def images(setting, kept=None):
  """-> the images of a setting, uint8 [NUM, 16, 16, 3]."""
  samples = f'{CASCADE}@{smoke_runs.trained()}'
  selection = dataclasses.replace(
    Selection(num=NUM, batch_per_device=2), overrides=setting
  )
  with smoke_runs.on(1):
    source = image_source.resolve(samples, selection, kept=kept)
    return np.concatenate([x for _, x in source.batches(0, 2)])


@pytest.fixture
def restored(monkeypatch):
  """-> list of (stage, step) of the checkpoints whose parameters were read."""
  read, restore_ema = [], reader.restore_ema

  def counted(workdir, abstract, *, step):
    read.append((workdir.name, step))
    return restore_ema(workdir, abstract, step=step)

  monkeypatch.setattr(reader, 'restore_ema', counted)
  return read


@pytest.fixture
def runs(monkeypatch):
  """-> list of the stages, by number, whose program was called."""
  called, jit_stage = [], cascade._jit_stage

  def counted(stage, i, *rest):
    program = jit_stage(stage, i, *rest)

    def run(*given):
      called.append(i)
      return program(*given)

    run._cache_size = program._cache_size
    return run

  monkeypatch.setattr(cascade, '_jit_stage', counted)
  return called


def test_levels_truncation_and_grids_share_programs_and_base_images(
  tmp_path, runs, restored
):
  """One program is compiled and one checkpoint read per stage."""
  tries = sweep.settings(
    [
      'stages.sr.level=0.0,0.1,0.2',
      'stages.sr.truncated=False,True',
    ]
  )[:5]
  kept = kept_images.Kept(tmp_path / 'kept')
  drawn = {}
  samples = f'{CASCADE}@{smoke_runs.trained()}'
  for setting in sweep.drawing_order(tries, samples, kept):
    drawn[setting] = images(setting, kept)
  programs = {key[0]: value for key, value in kept.programs.items()}
  assert programs.keys() == {0, 1, 'to_float'}
  assert all(program._cache_size() == 1 for program in programs.values())
  assert restored == [('base', 4), ('sr', 4)]
  # Two batches: the base once, and once more where it stops early.
  assert (runs.count(0), runs.count(1)) == (2 + 2, 5 * 2)
  level, truncated = tries[2], tries[3]
  for setting in (level, truncated):
    np.testing.assert_array_equal(drawn[setting], images(setting))
  assert (drawn[level] != drawn[truncated]).any()
  assert not (tmp_path / 'kept').exists()


def test_parameters_are_read_once_for_each_checkpoint_and_layout(
  tmp_path, restored
):
  kept = kept_images.Kept(tmp_path / 'kept')
  samples = f'{smoke_runs.trained() / "sr"}@eval'

  def resolve(at, *setting, devices=1):
    selection = Selection(NUM, overrides=setting, at=at, batch_per_device=2)
    with smoke_runs.on(devices):
      image_source.resolve(samples, selection, kept=kept)

  resolve(4, ('level', '0.1'))
  resolve(4, ('sampler.eta', '0.5'))
  resolve(None)
  assert restored == [('sr', 4)]
  resolve(2)
  resolve(2, ('level', '0.2'))
  assert restored == [('sr', 4), ('sr', 2)]
  resolve(2, devices=2)
  assert restored == [('sr', 4), ('sr', 2), ('sr', 2)]


def test_settings_of_early_stages_change_least_often():
  tries = sweep.settings(['stages.sr.level=0,0.1', 'stages.base.level=0,1'])
  samples = f'{CASCADE}@somewhere'

  class Watched(list):
    wanted = ()

    def forget(self, stages):
      self.append(list(stages))

  kept, order, wanted = Watched(), [], []
  for setting in sweep.drawing_order(tries, samples, kept):
    order.append([value for _, value in setting])
    wanted.append(kept.wanted)
  assert order == [['0', '0'], ['0.1', '0'], ['0', '1'], ['0.1', '1']]
  assert wanted == [[0], [], [0], []]
  assert kept == [[], [1], [0, 1], [1]]


def test_an_image_costs_what_its_networks_do():
  """A base model that stops early costs less; FLOPs are of every evaluation."""

  def costs(*setting):
    overrides, redraws = redrawn_sampler.split(setting)
    selection = Selection(
      NUM, overrides=overrides, redraws=redraws, batch_per_device=2
    )
    samples = f'{CASCADE}@{smoke_runs.trained()}'
    return image_source.resolve(samples, selection).costs()

  plain = costs()
  assert [cost['name'] for cost in plain] == ['base', 'sr']
  assert [cost['evaluations'] for cost in plain] == [4, 4]
  heun = costs(('stages.sr.sampler', 'heun'), ('steps', '3'))
  assert [cost['evaluations'] for cost in heun] == [3, 5]
  for before, after in zip(plain, heun, strict=True):
    each = before['flops'] / before['evaluations']
    assert after['flops'] == each * after['evaluations']
  stopped = costs(('stages.sr.level', '0.2'), ('stages.sr.truncated', 'True'))
  assert stopped[0]['evaluations'] < 4 == stopped[1]['evaluations']


@pytest.mark.parametrize('memory_bytes', [0, 150, 10**6])
def test_kept_images_come_back_from_memory_and_from_disk(
  tmp_path, memory_bytes
):
  import jax

  kept = kept_images.Kept(tmp_path / 'k', memory_bytes=memory_bytes)
  x = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
  for n in range(3):
    kept.put(0, f'{n}', jax.numpy.asarray(x + n))
  assert (
    len(list(tmp_path.rglob('*.npy'))) == {0: 3, 150: 2, 10**6: 0}[memory_bytes]
  )
  for n in range(3):
    np.testing.assert_array_equal(kept.get(0, f'{n}'), x + n)
  assert kept.get(1, '0') is None
  kept.forget([0])
  assert kept.get(0, '0') is None and not list(tmp_path.rglob('*.npy'))


def test_averages_are_settings_that_change_no_config():
  tried = sweep.settings(['ema=0.05,main,decay=0.90', 'level=0,0.1'])
  assert len(tried) == 6
  assert tried[0] == (('ema', 'std=0.05'), ('level', '0'))
  selections = [
    sweep.drawn_with(Selection(at='best'), setting) for setting in tried[::2]
  ]
  assert [s.at for s in selections] == [
    'best@std=0.05', 'best', 'best@decay=0.9'
  ]  # fmt: skip
  assert {s.overrides for s in selections} == {(('level', '0'),)}
  with pytest.raises(ValueError, match="'beta=2' names no average; give"):
    sweep.settings(['ema=beta=2'])


def test_no_guide_is_no_guide_whether_it_is_written_or_not():
  def recipe(sampler):
    return {'kind': 'cascade', 'stages': [{'checkpoint': 4, **sampler}]}

  def check(then, now):
    row = {'samples_recipe': recipe(then), 'reference_recipe': None}
    sweep.check_same('out', {(('level', '0'),): row}, recipe(now), None)

  check({}, {'sampler': {'guide': ''}})
  check({'sampler': {'kind': 'ddim'}}, {'sampler': {'guide': ''}})
  note = {'workdir': 'weak', 'experiment': 'smoke', 'checkpoint': 2}
  with pytest.raises(ValueError, match='rows of another guide'):
    check({'sampler': {'guide': ''}}, {'sampler': {'guide': note}})


def test_rows_of_another_average_are_not_continued_unless_it_is_tried():
  def recipe(average):
    named = {'ema': average} if average else {}
    return {'kind': 'cascade', 'stages': [{'checkpoint': 4, **named}]}

  def check(then, now, *, key):
    row = {'samples_recipe': recipe(then), 'reference_recipe': None}
    sweep.check_same('out', {((key, 'x'),): row}, recipe(now), None)

  check('std=0.05', 'std=0.05', key='level')
  check('std=0.05', None, key='ema')
  with pytest.raises(ValueError, match="rows of another average: it was .'std"):
    check('std=0.05', None, key='level')
