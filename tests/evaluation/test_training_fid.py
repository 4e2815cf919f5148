"""FID in training is that of `cdm evaluate`, drawn with what training holds.

Inception is replaced by a projection of the pixels, see `linear_features`.
"""

import gc
import json
import re
import weakref

import jax
import jax.numpy as jnp
import pytest
from support import smoke_runs
from support.linear_features import Projection, prepared

from cdm.config import loader
from cdm.distributed import device_mesh
from cdm.evaluation import extract_features, training_fid
from cdm.reporting import metric_writer
from cdm.training import eval_section, program

NUM = 40
FID = eval_section.FID


@pytest.fixture
def place(tmp_path, monkeypatch):
  """-> folder with weights, and sets of images."""
  return prepared(tmp_path, monkeypatch)


def words_of_fid(place, num=NUM):
  return {
    'eval.fid_every_steps': 2,
    'eval.fid_num': num,
    'eval.fid_weights': place / 'w.pth',
    'eval.every_steps': 0,
    'eval.best': FID,
    'eval.sampler_steps': None,  # as `cdm evaluate` draws
  }


def recorded(workdir):
  """-> {step: FID} of a run."""
  rows = metric_writer.read_scalars(workdir / metric_writer.SCALARS)
  return {row['step']: row[FID] for row in rows if FID in row}


@pytest.mark.parametrize(
  ('config', 'devices', 'num'), [('smoke', 8, 70), ('smoke_sr', 1, NUM)]
)
def test_fid_of_a_step_is_what_evaluate_gives_of_its_checkpoint(
  place, config, devices, num
):
  """To the last bit: the same images, drawn in batches of the same size."""
  workdir = place / 'run'
  smoke_runs.train(
    config,
    workdir,
    devices=devices,
    **words_of_fid(place, num=num),
    **({} if config == 'smoke' else {'eval.level': 0.2}),
  )
  found = recorded(workdir)
  assert list(found) == [2, 4] and found[2] != found[4]
  path = smoke_runs.CONFIGS / f'{config}.py'
  samples = f'{path}@{workdir}' if config == 'smoke' else f'{workdir}@eval'
  best = min(found, key=found.__getitem__)
  for step in found:
    at = 'best' if step == best else step
    with smoke_runs.on(devices):
      code = smoke_runs.cdm(
        *('evaluate', f'--samples={samples}', f'--at={at}', '--few'),
        *(f'--reference={path}:train', '--metrics=fid', f'--num={num}'),
        *(f'--weights={place / "w.pth"}', f'--out={place / f"{step}.json"}'),
        *([] if config == 'smoke' else ['--config.level=0.2']),
      )
    assert code == 0
    row = json.loads((place / f'{step}.json').read_text(encoding='utf-8'))
    assert row['fid'] == found[step]
    assert row['samples_recipe']['stages'][0]['checkpoint'] == step


forgets = []  # what forgets the partial results of each run of `make_fid`


def opened(place, config='smoke', devices=2, **options):
  """-> (run of `make_fid`, list of the batches of which the sampler is traced).

  The sampler shifts noise by a parameter.
  """
  given = {key: str(value) for key, value in words_of_fid(place).items()}
  c = loader.load(
    smoke_runs.CONFIGS / f'{config}.py', [*given.items(), *options.items()]
  )
  with smoke_runs.on(devices):
    assembled = program.assemble(c)
  traced = []

  def sample(params, *, keys, label=None, lowres=None, **_):
    traced.append(keys.shape)
    shape = (c.pipeline.image_size,) * 2 + (3,)
    x = jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)
    return x * params['shift']

  place_of = device_mesh.replicated(assembled.mesh)
  state = assembled.state.replace(
    ema_params={
      'shift': jax.ShapeDtypeStruct((), jnp.float32, sharding=place_of)
    }
  )
  built = assembled.built._replace(
    method=assembled.built.method._replace(sample=sample)
  )
  assembled = assembled._replace(built=built, state=state)
  run, forget = training_fid.make_fid(
    c, assembled, assembled.evaluation, place / 'run'
  )
  forgets.append(forget)
  return run, traced


def never():
  return False


def shift(value):
  return {'shift': jnp.float32(value)}


@pytest.mark.parametrize('config', ['smoke', 'smoke_sr'])
def test_the_sampler_is_compiled_once_and_no_parameters_are_kept(place, config):
  run, traced = opened(place, config)
  first = run(None, shift(0.5), never)[FID]
  params = shift(0.9)
  kept = weakref.ref(params['shift'])
  assert run(None, params, never)[FID] != first
  assert len(traced) == 1
  del params
  gc.collect()
  assert kept() is None
  assert run(None, shift(0.5), never)[FID] == first


def test_the_reference_is_computed_once_for_all_starts(place):
  run, _ = opened(place)
  first = run(None, shift(0.5), never)
  calls, Projection.calls = Projection.calls, 0
  assert run(None, shift(0.5), never) == first
  again, Projection.calls = Projection.calls, 0
  assert again < calls
  run, _ = opened(place)
  assert run(None, shift(0.5), never) == first
  assert Projection.calls == again  # statistics of an earlier start
  (kept,) = (place / 'cache').rglob('reference-*.npz')
  kept.write_bytes(kept.read_bytes()[:-40])
  run, _ = opened(place)
  assert run(None, shift(0.5), never) == first


def test_a_request_to_stop_is_looked_at_between_batches(place):
  whole = opened(place)[0](None, shift(0.5), never)
  for path in (place / 'cache').rglob('reference-*.npz'):
    path.unlink()
  run, _ = opened(place)
  for asked in range(1, 100):  # in the reference, then in the samples
    Projection.calls, answers = 0, iter([False] * (asked - 1) + [True])
    result = run(None, shift(0.5), lambda answers=answers: next(answers, False))
    if result is not None:
      break
    assert Projection.calls <= asked + 1  # the network is one batch ahead
  assert asked > 2 and result == whole


def stopped_after(batches, run, params):
  """Asks to stop after so many batches; -> the result and the calls."""
  Projection.calls, answers = 0, iter([False] * (batches - 1) + [True])
  result = run(None, params, lambda: next(answers))
  return result, Projection.calls


@pytest.mark.parametrize('config', ['smoke', 'smoke_sr'])
def test_a_run_that_is_stopped_while_it_draws_goes_on_where_it_was(
  place, config
):
  """To the last bit, with the same parameters and settings only."""
  options = {'eval.fid_num': '200' if config == 'smoke' else '64'}
  options |= {'train_data.num_images': '16'}  # of the reference
  home = place / 'run' / training_fid.FOLDER

  def new(**more):
    return opened(place, config, **(options | more))[0]

  run = new()
  whole = run(None, shift(0.5), never)
  Projection.calls = 0
  assert run(None, shift(0.5), never) == whole
  every, Projection.calls = Projection.calls, 0
  assert every == (4 if config == 'smoke' else 2)
  other = run(None, shift(0.9), never)
  forgets[-1]()
  assert not home.exists()
  assert stopped_after(every - 1, new(), shift(0.5))[0] is None
  (kept,) = home.rglob('*.npz')
  assert kept.name == f'process-0-batches-{every - 1}.npz'
  Projection.calls, run = 0, new(**{'train.num_steps': '9'})
  assert run(None, shift(0.5), never) == whole
  assert Projection.calls == 1
  for params, expected, more in (
    (shift(0.9), other, {}),
    (shift(0.5), None, {'seed': '1'}),
    (shift(0.5), None, {'sampler.guidance_weight': '0.5'}),
  ):
    assert stopped_after(1, new(), shift(0.5))[0] is None
    Projection.calls, run = 0, new(**more)
    found = run(None, params, never)
    assert Projection.calls == every and expected in (None, found)
    assert not home.exists() or len(list(home.iterdir())) <= 1
  forgets[-1]()
  assert not home.exists()


def test_statistics_in_a_file_are_the_reference(place):
  path = smoke_runs.CONFIGS / 'smoke.py'
  words = (f'--reference={path}:train', f'--out={place / "s.npz"}')
  weights = f'--weights={place / "w.pth"}'
  assert smoke_runs.cdm('evaluate', '--make_reference', *words, weights) == 0
  run, _ = opened(place)
  expected = run(None, shift(0.5), never)
  run, _ = opened(place, **{'eval.fid_reference': str(place / 's.npz')})
  Projection.calls = 0
  assert run(None, shift(0.5), never) == expected
  assert Projection.calls == 1  # the samples are drawn in one batch


@pytest.mark.parametrize(
  ('config', 'change', 'message'),
  [
    (
      'smoke',
      {'fid_weights': 'no.pth'},
      r'fid_every_steps is 2, .*--config\.eval\.fid_weights=no\.pth is not '
      r'there.* Without FID, use --config\.eval\.fid_every_steps=0',
    ),
    (
      'smoke',
      {'fid_reference': 'nowhere'},
      r"fid_reference is 'nowhere', which cannot be used: nowhere does not",
    ),
    (
      'smoke',
      {'fid_reference': 'runs/sr@eval'},
      r"fid_reference is 'runs/sr@eval'; .* is not drawn",
    ),
    (
      'smoke_sr',
      {'fid_num': '5000'},
      r'config\.eval\.fid_num is 5000, but config\.eval_data holds 64 images',
    ),
  ],
)
def test_what_cannot_be_is_refused_before_training(
  place, capsys, config, change, message
):
  given = words_of_fid(place) | {f'eval.{k}': v for k, v in change.items()}
  code = smoke_runs.cdm(
    *('train', f'--config={smoke_runs.CONFIGS / config}.py'),
    *(f'--workdir={place / "run"}',),
    *(f'--config.{key}={value}' for key, value in given.items()),
  )
  error = capsys.readouterr().err
  assert code == 2
  assert error.count('cdm: error: ') == 1
  assert re.search(message, error), error
  assert not (place / 'run').exists()


def test_weights_that_cannot_be_fetched_are_told_at_the_start(
  place, monkeypatch
):
  def refused(url, sha256, *, flag):
    raise OSError(f'w.pth cannot be fetched. Give its path with {flag}.')

  monkeypatch.setattr(extract_features.download, 'fetch', refused)
  message = r'cannot be fetched\. Give its path with --config\.eval\.fid_weig'
  with pytest.raises(ValueError, match=message):
    opened(place, **{'eval.fid_weights': ''})


def test_few_images_are_warned_of(place, capsys):
  opened(place)
  assert f'FID of {NUM} images is biased upwards' in capsys.readouterr().err
