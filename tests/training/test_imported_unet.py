"""Files of published U-Nets become stages: outputs, gradients, five steps.

The numbers are those of the families' own programs, see `tests/oracles`.
"""

import functools
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import published_weights, smoke_runs
from support.oracles import ORACLES, assert_matches, oracle, rule_weights

from cdm.config import loader, sampler_section
from cdm.config import stage as stages
from cdm.methods import diffusion, lowres_conditioning
from cdm.models.pretrained import download, published_unets
from cdm.models.pretrained.published_unets import Asked
from cdm.training import imported_unet

# Compiles several times faster; the numbers are the same to rounding.
FAST = {'xla_backend_optimization_level': 0}


def nhwc(x):
  return jnp.asarray(x).transpose(0, 2, 3, 1)


def nchw(x):
  return np.asarray(x).transpose(0, 3, 1, 2)


def drawing(made, **sampler):
  """-> the method of a stage, with another sampler."""
  c = made.config
  built = stages.stage(c)
  section = {**dict(c.sampler), **sampler}
  if section['kind'] == 'ddim':
    section.pop('variance', None)
  return diffusion.Diffusion(
    built.net,
    built.schedule,
    built.objective,
    sampler_section.sampling(built.schedule, section),
    c.pipeline.image_size,
    built.lowres,
  )


def check_steps(made, arrays, keys, run, lowres=None, **sampler):
  """Draws with stored noise, and compares the last images."""
  method = drawing(made, **sampler)
  grid = method.sampling.grid
  assert len(grid) == 6
  start = nhwc(arrays[f'{run}/start_noise'])
  noise = jnp.zeros((5, *start.shape))
  if f'{run}/step_noise' in arrays:
    noise = jnp.moveaxis(jnp.asarray(arrays[f'{run}/step_noise']), 2, -1)
  label = arrays[f'{run}/y'] if f'{run}/y' in arrays else None
  conditions = {
    'label': None if label is None else jnp.asarray(label, jnp.int32),
    'upsampled': lowres,
    'level': None,
  }

  @functools.partial(jax.jit, compiler_options=FAST)
  def draw(params, start, noise, conditions):
    denoise = method.denoiser(params, **conditions)
    return method.sampling.run(
      method.clipped(denoise, conditions['upsampled']),
      start,
      logsnrs=grid,
      noise=lambda j: noise[j],
    )

  key = f'{run}/x_f32'
  found = draw(made.params, start, noise, conditions)
  assert_matches(nchw(found), arrays[key][1], keys[key]['tol'], key)


OPENAI = {
  'adm_superres': (
    'adm',
    dict(image_size=32, lowres_size=16, head_features=16),
    dict(attention_order='legacy', schedule='linear', timesteps=1000),
  ),
  'adm_ddim': (
    'adm',
    dict(image_size=16, num_heads=1),
    dict(attention_order='legacy', schedule='cosine', timesteps=1000),
  ),
  'iddpm_file': (
    'improved-diffusion',
    dict(image_size=16, num_heads=(4, 2)),
    dict(schedule='cosine', timesteps=4000, rescale_timesteps=True),
  ),
}


@pytest.mark.parametrize('run', OPENAI)
def test_five_steps_are_those_of_openai(run, tmp_path):
  tables, arrays = oracle('sampler_steps_networks')
  settings = tables['settings']['runs'][run]
  family, network, how = OPENAI[run]
  weights = oracle(settings['oracle'])[0]['weights'][settings['model']]
  path = tmp_path / 'ema_0.9999_100000.pt'
  published_weights.write_pytorch(path, rule_weights(weights), zipped=True)
  made = imported_unet.read(
    family, path, name='a', asked=Asked(**network, **how)
  )
  lowres = None
  if 'lowres_size' in network:
    built = stages.stage(made.config)
    low = nhwc(arrays[f'{run}/low_res'])
    lowres = lowres_conditioning.upsample(low, 32, built.lowres)
  sampler = {'kind': 'ddim', 'eta': 0.0} if settings['use_ddim'] else {}
  spacing = settings['timestep_respacing']
  check_steps(
    made,
    arrays,
    tables['keys'],
    run,
    lowres,
    grid={'kind': 'respaced', 'spacing': spacing},
    **sampler,
  )


def test_five_steps_are_those_of_the_unofficial_sr3(tmp_path):
  """The file is a whole one: prefixed, with the tables of its schedule."""
  run = 'sr3_conditional'
  tables, arrays = oracle('sampler_steps_networks')
  settings = tables['settings']['runs'][run]
  weights = oracle('sr3_unet')[0]['weights'][settings['model']]
  ends = settings['beta_schedule']
  betas = np.linspace(ends['linear_start'], ends['linear_end'], 5)
  state = {f'denoise_fn.{k}': v for k, v in rule_weights(weights).items()}
  for name, value in (('betas', betas), ('alphas_cumprod', 1 - betas)):
    state[name] = value.astype(np.float32)
  published_weights.write_pytorch(tmp_path / 'gen.pth', state, zipped=False)
  asked = Asked(16, 4, norm_groups=32)
  made = imported_unet.read('sr3', tmp_path / 'gen.pth', name='s', asked=asked)
  assert dict(made.config.schedule) == dict(
    kind='linear', num_steps=5, beta_min=1e-4, beta_max=0.4
  )
  low = nhwc(arrays[f'{run}/low_res'])
  check_steps(made, arrays, tables['keys'], run, low)


def folder(tmp_path, name='tiny-ddpm', scheduler=None):
  """-> a folder that diffusers wrote, with this scheduler if one is given."""
  with zipfile.ZipFile(ORACLES / 'diffusers_unet_folder.zip') as archive:
    archive.extractall(tmp_path)
  if scheduler is not None:
    text = json.dumps({'_class_name': scheduler['cls'], **scheduler['config']})
    path = tmp_path / name / 'scheduler' / 'scheduler_config.json'
    path.write_text(text, encoding='utf-8')
  return tmp_path / name


@pytest.mark.parametrize(
  'run', ['ddpm_fixed_large', 'ddpm_fixed_small_v', 'ddim_eta0']
)
def test_five_steps_are_those_of_diffusers(run, tmp_path):
  tables, arrays = oracle('diffusers_unet')
  scheduler = tables['settings']['schedulers'][run]
  path = folder(tmp_path, scheduler=scheduler)
  made = imported_unet.read('diffusers', path, name='d', asked=Asked())
  trailing = scheduler['config']['timestep_spacing'] == 'trailing'
  grid = (
    {'kind': 'trailing', 'num_steps': 5}
    if trailing
    else {'kind': 'respaced', 'spacing': 'ddim5'}
  )
  if run == 'ddim_eta0':
    assert dict(made.config.sampler.grid)['spacing'] == 'ddim50'
  check_steps(made, arrays, tables['keys'], f'sched/{run}', grid=grid)


def test_folders_of_2022_and_of_today_hold_the_same(tmp_path):
  today, before = (
    imported_unet.read(
      'diffusers',
      folder(tmp_path, name),
      name='d',
      asked=Asked(schedule='linear'),
    )
    for name in ('tiny-ddpm', 'tiny-ddpm-2022')
  )
  assert today.config == before.config
  jax.tree.map(np.testing.assert_array_equal, today.params, before.params)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'steps_offset': 1}, 'steps_offset is 1; only 0 can be followed.'),
    ({'rescale_betas_zero_snr': True}, 'rescale_betas_zero_snr is True'),
    ({'beta_schedule': 'sigmoid'}, "beta_schedule is 'sigmoid'; linear, squ"),
    ({'_class_name': 'PNDMScheduler'}, "'PNDMScheduler'; DDPMScheduler, DDIM"),
  ],
)
def test_a_scheduler_that_cannot_be_followed_is_named(
  change, message, tmp_path
):
  path = folder(tmp_path, scheduler={'cls': 'DDIMScheduler', 'config': change})
  with pytest.raises(ValueError, match=f'scheduler_config.json: .*{message}'):
    imported_unet.read('diffusers', path, name='d', asked=Asked())


def iddpm(**asked):
  known = dict(image_size=16, num_heads=(4, 2), schedule='cosine')
  known |= dict(timesteps=4000, rescale_timesteps=True)
  return imported_unet.read(
    'improved-diffusion',
    ORACLES / 'iddpm_unet.pt',
    name='i',
    asked=Asked(**known | asked),
  )


def test_the_config_is_that_of_the_file():
  c = iddpm().config
  assert c.pipeline.image_size == 16 and c.lowres is None
  assert c.model.num_classes == 5 and c.model.learned_variance
  assert c.model.condition_scale == 0.25 and c.model.num_heads == (4, 2)
  assert c.model.embedding == 'film' and c.model.attention_resolutions == (16,)
  assert dict(c.schedule) == dict(
    kind='cosine', num_steps=4000, offset=0.008, max_beta=0.999
  )
  assert (c.sampler.variance, c.sampler.grid.spacing) == ('learned', '250')
  assert c.method.loss == 'hybrid' and c.method.vb_rescale
  assert loader.from_json(loader.to_json(c), 'config.json') == c


@pytest.mark.parametrize(
  'change, message',
  [
    ({'image_size': None}, 'not tell image_size; give --image_size=VALUE'),
    ({'num_heads': None}, 'not tell the heads of attention; give --num_heads'),
    (
      {'norm_groups': 8},
      '--norm_groups is given, which says nothing of a file',
    ),
    ({'head_features': 8}, 'says nothing of a file of improved-diffusion'),
    ({'rescale_timesteps': None}, 'not tell rescale_timesteps'),
    ({'lowres_size': 8}, 'takes no low-res image'),
  ],
)
def test_what_the_file_does_not_tell_is_asked_for(change, message):
  with pytest.raises(ValueError, match=message):
    iddpm(**change)


def test_a_wrong_preset_is_refused_with_the_first_difference():
  preset = published_unets.PRESETS['iddpm:cifar10']
  with pytest.raises(ValueError, match='its features is 32, and 128 was exp'):
    imported_unet.read(
      preset.family,
      ORACLES / 'iddpm_unet.pt',
      name='i',
      asked=Asked(),
      preset=preset,
    )


def test_a_preset_leaves_nothing_to_say():
  preset = published_unets.PRESETS['adm:imagenet64']
  with pytest.raises(ValueError, match='--timesteps is given, but the preset'):
    imported_unet.read(
      'adm', 'x.pt', name='a', asked=Asked(timesteps=4000), preset=preset
    )


def test_every_parameter_that_is_missing_or_too_much_is_named(tmp_path):
  weights = oracle('iddpm_unet')[0]['weights']['file']
  state = rule_weights(weights)
  del state['middle_block.1.qkv.bias'], state['time_embed.2.bias']
  state['extra.weight'] = np.zeros(3)
  published_weights.write_pytorch(tmp_path / 'a.pt', state, zipped=True)
  with pytest.raises(ValueError) as error:
    imported_unet.read(
      'adm',
      tmp_path / 'a.pt',
      name='a',
      asked=Asked(
        16,
        num_heads=4,
        attention_order='new',
        schedule='linear',
        timesteps=1000,
      ),
    )
  for name in ('middle_block.1.qkv.bias', 'time_embed.2.bias', 'extra.weight'):
    assert name in str(error.value)


def command(file, workdir, *words):
  with smoke_runs.on(1):
    return smoke_runs.cdm('import', file, f'--out={workdir}', *words)


def test_the_command_writes_a_stage_that_is_drawn_from(tmp_path, capsys):
  run, out = tmp_path / 'run', tmp_path / 'out'
  words = ['--from=improved-diffusion', '--image_size=16', '--num_heads=4,2']
  words += ['--schedule=cosine', '--timesteps=4000']
  words += ['--rescale_timesteps=true', '--name=small']
  path = ORACLES / 'iddpm_unet.pt'
  assert command(path, run, *words) == 0
  told = capsys.readouterr().out
  assert '89 of 89 arrays are from the files' in told
  assert f'SHA-256 {download.digest(path)}' in told
  draw = [f'--config={run}/config.json', f'--workdir={run}', '--num=2']
  with smoke_runs.on(1):
    draw += ['--steps=2', f'--out={out}']
    assert smoke_runs.cdm('sample', *draw) == 0
  with np.load(out / 'samples.npz') as samples:
    assert samples['arr_0'].shape == (2, 16, 16, 3)
  assert len(list((out / 'small').rglob('*.png'))) == 2
  assert command(path, run, *words) == 2  # it is left as it is
  assert 'holds checkpoints already' in capsys.readouterr().err


@pytest.mark.parametrize(
  'words, message',
  [
    (['--from=adm'], '--from=adm needs the file with the weights'),
    (['--from=admm:imagenet64', 'x.pt'], 'Did you mean adm:imagenet64'),
    (['--from=sr3:faces16to128'], 'lies on a page for browsers'),
    (['--from=adm', 'x.pt', '--num_heads=a'], 'give one whole number, or two'),
    (['--from=adm', 'x.pt', '--mapping=m.pt'], '--mapping belongs to files of'),
    (['x.pt'], 'x.pt belongs to --from=FAMILY'),
    ([], '--config, --workdir, --synthesis'),
  ],
)
def test_words_that_do_not_go_together_are_refused(
  words, message, tmp_path, capsys
):
  out = [f'--out={tmp_path / "run"}'] if '--from' in ''.join(words) else []
  assert smoke_runs.cdm('import', *words, *out) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_a_preset_is_fetched_and_checked(tmp_path, monkeypatch, capsys):
  """The network of the file is another, so that it is refused after that."""
  asked = []

  def fetch(url, sha256, **_):
    asked.append((url, sha256))
    return ORACLES / 'iddpm_unet.pt'

  monkeypatch.setattr(download, 'fetch', fetch)
  out = f'--out={tmp_path / "run"}'
  assert smoke_runs.cdm('import', '--from=iddpm:cifar10', out) == 2
  assert 'another network than this preset' in capsys.readouterr().err
  preset = published_unets.PRESETS['iddpm:cifar10']
  assert asked == [(preset.where, None)]
  assert smoke_runs.cdm('import', '--from=adm:imagenet256_uncond', out) == 2
  assert 'instead of a37c32ff' in capsys.readouterr().err
