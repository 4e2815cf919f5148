"""A weaker checkpoint guides a stage, through the front door."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from support import smoke_runs

from cdm.checkpointing import reader
from cdm.config import loader, stage
from cdm.evaluation import image_source, sweep
from cdm.evaluation.image_selection import Selection
from cdm.methods import autoguided
from cdm.sampling import cascade, kept_images, restore
from cdm.sampling.restored_parameters import Checkpoint

CASCADE = smoke_runs.CONFIGS / 'smoke_cascade.py'
SMOKE = smoke_runs.CONFIGS / 'smoke.py'


@pytest.fixture(scope='module')
def runs():
  """-> folder with `base` and `sr`, which have checkpoints 2 and 4."""
  return smoke_runs.trained()


@pytest.fixture(scope='module')
def small():
  """-> work directory of a smaller base model, of half the features."""
  workdir = smoke_runs.temporary() / 'small'
  smoke_runs.train(
    'smoke',
    workdir,
    model__features=4,
    model__norm_groups=2,
    model__null_class=False,
    method__label_dropout=0.0,
    train__num_steps=2,
  )
  return workdir


def sample(out, workdir, *words, config=SMOKE, devices=1):
  """-> images of `cdm sample`, uint8 [3, H, W, 3]."""
  given = [f'--config={config}', f'--workdir={workdir}', f'--out={out}']
  with smoke_runs.on(devices):
    code = smoke_runs.cdm('sample', *given, '--num=3', *words)
  assert code == 0
  with np.load(out / 'samples.npz') as stored:
    return stored['arr_0'].astype(int)


def test_a_smaller_network_guides_a_base_stage(runs, small, tmp_path, capsys):
  base = runs / 'base'
  plain = sample(tmp_path / 'plain', base)
  guide = [f'--guide={small}', '--guidance_weight=2']
  guided = sample(tmp_path / 'guided', base, *guide)
  assert np.abs(guided - plain).max() > 2
  told = capsys.readouterr().out
  assert 'smoke: guidance weight: 2 (D + w' in told
  assert f'guided by {small}, step 2' in told
  manifest = json.loads(
    (tmp_path / 'guided' / 'sampling.json').read_text(encoding='utf-8')
  )
  [stage] = manifest['stages']
  assert stage['sampler']['guidance_weight'] == 2.0
  assert stage['sampler']['guide'] == {
    'workdir': str(small),
    'experiment': 'smoke',
    'checkpoint': 2,
  }
  # A weight of 0 is checked, but runs the strong network alone.
  none = [f'--guide={small}', '--guidance_weight=0']
  np.testing.assert_array_equal(sample(tmp_path / 'none', base, *none), plain)


def test_guided_images_are_the_extrapolation_of_both_networks(runs, tmp_path):
  """At one step, straight from noise: x_0 + w (x_0 - x_0 of the guide)."""
  weak = Checkpoint(runs / 'base', 2)
  strong = Checkpoint(runs / 'base', 4)
  one_step = [
    ('sampler.grid.spacing', '1'),
    ('sampler.clip', 'none'),
  ]
  weight = 1.5
  guide = [
    ('sampler.guide', f'{runs / "base"}@2'),
    ('sampler.guidance_weight', str(weight)),
  ]

  def drawn(checkpoint, overrides):
    with smoke_runs.on(1):
      stage, _, _ = restore.restored_stage(
        checkpoint, name='base', overrides=overrides
      )
    keys = jax.vmap(jax.random.key)(np.arange(3))
    label = np.arange(3, dtype=np.int32)
    return np.asarray(
      stage.jit(stage.sample)(stage.params, keys=keys, label=label)
    )

  own, other = drawn(strong, one_step), drawn(weak, one_step)
  assert np.abs(own - other).max() > 0.01
  np.testing.assert_allclose(
    drawn(strong, one_step + guide),
    own + weight * (own - other),
    atol=2e-3,
  )


def test_half_of_what_a_guided_image_costs_is_of_the_guide(
  runs, small, tmp_path
):
  """Which is cheaper, being smaller."""
  guide = [('sampler.guide', str(small)), ('sampler.guidance_weight', '1.0')]

  def cost(overrides):
    kept = kept_images.Kept(tmp_path / 'kept')
    selection = Selection(num=2, overrides=overrides, batch_per_device=2)
    with smoke_runs.on(1):
      samples = f'{SMOKE}@{runs / "base"}'
      source = image_source.resolve(samples, selection, kept=kept)
    [found] = source.costs()
    return found

  alone, guided = cost(()), cost(guide)
  one = [
    stage.stage(
      loader.load(SMOKE, [(k, str(v)) for k, v in overrides.items()])
    ).trace()[1]
    for overrides in (
      smoke_runs.SMALL,
      smoke_runs.SMALL | {'model.features': 4, 'model.norm_groups': 2},
    )
  ]
  assert one[1] < one[0] / 2
  assert alone['flops'] == alone['evaluations'] * one[0]
  assert guided['evaluations'] == 2 * alone['evaluations']
  assert guided['flops'] == alone['evaluations'] * sum(one)


def test_a_folder_is_not_continued_with_another_guide(
  runs, small, tmp_path, capsys
):
  base, out = runs / 'base', tmp_path / 'out'
  weight = '--guidance_weight=1'
  sample(out, base, f'--guide={base}@2', weight)
  before = smoke_runs.snapshot(out)
  given = [f'--config={SMOKE}', f'--workdir={base}', f'--out={out}', '--num=3']
  for words in (
    [f'--guide={small}', weight],
    [f'--guide={base}@4', weight],
    [f'--guide={base}@2', '--guidance_weight=1.5'],
    [],
  ):
    with smoke_runs.on(1):
      assert smoke_runs.cdm('sample', *given, *words) == 2
    assert 'Give another --out' in capsys.readouterr().err
  assert smoke_runs.snapshot(out) == before
  sample(out, base, f'--guide={base}@2', weight)


def test_every_stage_of_a_cascade_may_have_a_guide(runs, tmp_path):
  words = [
    f'--guide=sr:{runs / "sr"}@2',
    '--guidance_weight=sr:2',
    '--guidance_weight=base:0.5',  # by its own null class
  ]
  images = sample(tmp_path / 'a', runs, *words, config=CASCADE)
  keys = [
    f'--config.stages.sr.guide={runs / "sr"}@2',
    '--config.stages.sr.guidance_weight=2',
    '--config.stages.base.guidance_weight=0.5',
  ]
  np.testing.assert_array_equal(
    sample(tmp_path / 'b', runs, *keys, config=CASCADE), images
  )
  manifest = (tmp_path / 'a' / 'sampling.json').read_text(encoding='utf-8')
  assert (tmp_path / 'b' / 'sampling.json').read_text(
    encoding='utf-8'
  ) == manifest
  base, sr = json.loads(manifest)['stages']
  assert base['sampler']['guidance_weight'] == 0.5
  assert base['sampler'].get('guide') is None
  assert sr['sampler']['guide']['checkpoint'] == 2
  assert 'guide' not in sr and 'guidance_weight' not in sr
  plain = sample(tmp_path / 'plain', runs, config=CASCADE)
  assert np.abs(images - plain).max() > 2


@pytest.mark.parametrize('by', ['its null class', 'a weaker network'])
def test_split_parameters_and_devices_change_the_layout_not_the_images(
  runs, by
):
  """Both networks are arguments of the program, split as the mesh says."""
  weaker = by == 'a weaker network'
  guide = [
    ('sampler.guide', f'{runs / "base"}@2' if weaker else ''),
    ('sampler.guidance_weight', '1.5'),
  ]

  def drawn(devices, **mesh):
    section = {'data': 1, 'fsdp': 1, 'tensor': 1, 'split': 'all', 'rules': ()}
    with smoke_runs.on(devices):
      stage, _, _ = restore.restored_stage(
        Checkpoint(runs / 'base'),
        name='base',
        mesh=section | mesh,
        overrides=guide,
      )
    run = cascade.stage_runs([stage])[0]
    label = np.arange(4, dtype=np.int32)
    z, _ = run(stage.params, 0, np.arange(4), label, None)
    return stage, np.asarray(z)

  alone, expected = drawn(1)
  split, images = drawn(4, data=2, fsdp=2)
  assert isinstance(alone.params, autoguided.Parameters) == weaker
  # uint8 passes between stages: a grey level apart where rounding decides.
  np.testing.assert_allclose(images, expected, atol=1.01 / 127.5)
  for tree in split.params if weaker else [split.params]:
    specs = {str(leaf.sharding.spec) for leaf in jax.tree.leaves(tree)}
    assert any('fsdp' in spec for spec in specs), specs


@pytest.mark.parametrize('compared', ['free', 'weaker'])
def test_a_sweep_over_weights_compiles_once_and_reads_each_network_once(
  runs, tmp_path, monkeypatch, compared
):
  """Weight 0 is a program of its own; the others, and the levels, share one."""
  tries = [
    'stages.sr.guidance_weight=0,0.5,1,2',
    'stages.sr.level=0.1,0.2',
  ]
  if compared == 'weaker':
    tries.append(f'stages.sr.guide={runs / "sr"}@2')
  read, restore_ema = [], reader.restore_ema

  def counted(workdir, abstract, *, step):
    read.append((workdir.name, step))
    return restore_ema(workdir, abstract, step=step)

  monkeypatch.setattr(reader, 'restore_ema', counted)
  kept = kept_images.Kept(tmp_path / 'kept')
  samples = f'{CASCADE}@{runs}'
  images = {}
  for setting in sweep.drawing_order(sweep.settings(tries), samples, kept):
    selection = Selection(num=2, overrides=setting, batch_per_device=2)
    with smoke_runs.on(1):
      source = image_source.resolve(samples, selection, kept=kept)
      images[setting] = np.concatenate([x for _, x in source.batches(0, 2)])
  assert sorted(set(read)) == sorted(read)
  assert (('sr', 2) in read) == (compared == 'weaker')
  sizes = [
    program._cache_size()
    for key, program in kept.programs.items()
    if key[0] == 1
  ]
  assert sizes == [1, 1]
  assert len(np.unique([x.ravel() for x in images.values()], axis=0)) == 8


@pytest.mark.parametrize(
  ('guide', 'message'),
  [
    ('{runs}/sr', r'does not fit .smoke.: pipeline\.image_size is 16'),
    ('{runs}/base@3', r'no checkpoint of step 3 in .*/base; there are \[2, 4'),
    ('{runs}/nothing', r'There is no checkpoint in .*/nothing'),
  ],
)
def test_a_guide_that_cannot_guide_is_told(
  runs, tmp_path, capsys, guide, message
):
  given = [f'--config={SMOKE}', f'--workdir={runs / "base"}']
  out = tmp_path / 'out'
  given += [f'--guide={guide.format(runs=runs)}', '--guidance_weight=0.5']
  assert smoke_runs.cdm('sample', *given, f'--out={out}') == 2
  error = capsys.readouterr().err
  assert re.search(message, error), error
  assert not out.exists()


def test_a_guide_of_other_classes_is_refused(runs, tmp_path):
  base = tmp_path / 'base'
  shutil.copytree(runs / 'base', base)
  path = base / 'classes.json'
  names = (
    json.loads(path.read_text(encoding='utf-8'))
    if path.exists()
    else list('abcd')
  )
  path.write_text(json.dumps(names[::-1]), encoding='utf-8')
  with pytest.raises(ValueError, match='trained on other classes'):
    restore.restored_stage(
      Checkpoint(runs / 'base'),
      name='base',
      overrides=[('sampler.guide', str(base))],
    )


def test_a_guide_of_a_cascade_asks_for_a_weight(runs):
  c = loader.load(CASCADE, [('stages.sr.guide', f'{runs / "sr"}@2')])
  with pytest.raises(ValueError, match=r'stages\.sr\.guidance_weight=W'):
    restore.restored_cascade(c, runs)


def test_held_out_images_are_guided_too(runs, tmp_path):
  """`cdm upscale` takes the same flags as `cdm sample`."""
  sr = runs / 'sr'
  given = [f'--workdir={sr}', '--held_out=2']
  words = [f'--guide={sr}@2', '--guidance_weight=3']
  with smoke_runs.on(1):
    for name, more in (('plain', []), ('guided', words)):
      out = f'--out={tmp_path / name}'
      assert smoke_runs.cdm('upscale', *given, out, *more) == 0
  pictures = [
    sorted((tmp_path / name / 'upscaled').glob('*.png'))
    for name in ('plain', 'guided')
  ]
  plain, guided = (
    np.stack([np.asarray(Image.open(path), int) for path in paths])
    for paths in pictures
  )
  assert np.abs(plain - guided).max() > 2
