"""Published weights become a work directory that draws, without training."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support import smoke_runs
from support.published_weights import stylegan_state, write_pytorch

from cdm.checkpointing import reader
from cdm.config import loader
from cdm.models.pretrained import stylegan
from cdm.models.stylegan import Generator
from cdm.training import imported_stylegan

CONFIG = smoke_runs.CONFIGS / 'pulse_faces1024.py'
FIELDS = dict(latent_size=4, feature_base=64, most_features=8)
SMALL = [
  *('--config.pipeline.image_size=32', '--config.method.search.steps=2'),
  *(f'--config.model.{name}={value}' for name, value in FIELDS.items()),
]
TRAINED = [
  *('--config.model.mapping_layers=2', '--config.method.fit_samples=30'),
  '--config.model.discriminator.features=4',
]


@pytest.fixture
def files(tmp_path):
  """-> {name of an option: path of a published file}."""
  net = Generator(32, mapping_layers=2, **FIELDS)
  states = {
    part: stylegan_state(net, part) for part in ('synthesis', 'mapping')
  }
  states['gaussian_fit'] = {'mean': np.full(4, 0.5), 'std': np.ones(4)}
  paths = {name: tmp_path / f'{name}.pt' for name in states}
  for name, state in states.items():
    write_pytorch(paths[name], state, zipped=True)
  return paths


def given(files, *names):
  return [f'--{name}={files[name]}' for name in names]


def run(command, workdir, *words):
  with smoke_runs.on(1):
    return smoke_runs.cdm(command, f'--workdir={workdir}', *words)


@pytest.mark.parametrize(
  'names, words',
  [
    (('synthesis', 'mapping'), TRAINED),
    (('synthesis', 'gaussian_fit'), []),
  ],
)
def test_imported_weights_super_resolve_a_picture(
  names, words, files, tmp_path, capsys
):
  """Also where the files are a synthesis and a Gaussian, without a mapping."""
  workdir, picture = tmp_path / 'run', tmp_path / 'face.png'
  words = [f'--config={CONFIG}', *SMALL, *words]
  assert run('import', workdir, *words, *given(files, *names)) == 0
  told = capsys.readouterr().out
  assert ('at random, for training: discriminator' in told) == (
    'mapping' in names
  )
  noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
  Image.fromarray(noise).save(picture)
  assert run('upscale', workdir, picture, f'--out={tmp_path / "out"}') == 0
  printed = capsys.readouterr()
  assert 'method.search.eps, was found for 1 of 1 images' in printed.err
  assert Image.open(tmp_path / 'out' / 'face.png').size == (32, 32)
  # A directory that holds a checkpoint is left as it is.
  assert run('import', workdir, *words, *given(files, *names)) == 2
  assert 'holds checkpoints already' in capsys.readouterr().err


def test_imported_weights_are_trained_further(files, tmp_path, capsys):
  workdir = tmp_path / 'run'
  words = [f'--config={CONFIG}', *SMALL, *TRAINED]
  more = given(files, 'synthesis', 'mapping')
  assert run('import', workdir, *words, *more) == 0
  data = dict(kind='synthetic', image_size=32, num_images=16, num_classes=1)
  words += [
    f'--config.{section}.{key}={value}'
    for section in ('train_data', 'eval_data')
    for key, value in {**data, 'seed': 0}.items()
  ]
  words += [
    *('--config.train.num_steps=2', '--config.train.batch_size=2'),
    *('--config.train.log_every_steps=1', '--config.train.save_every_steps=2'),
    *('--config.train.sample_every_steps=0', '--config.eval.every_steps=0'),
    '--config.pipeline.worker_count=0',
  ]
  assert run('train', workdir, *words) == 0
  assert reader.complete_steps(workdir)[-1] == 2
  assert 'checkpoint of step 0' in ''.join(capsys.readouterr())


def test_the_checkpoint_holds_the_numbers_of_the_files(files, tmp_path):
  words = [f'--config={CONFIG}', *SMALL, *TRAINED]
  words += given(files, 'synthesis', 'mapping')
  assert run('import', tmp_path / 'run', *words) == 0
  name = 'ema_params/generator/mapping/dense1/kernel'
  read = reader.restore_arrays(
    tmp_path / 'run',
    {name: jax.ShapeDtypeStruct((4, 4), jnp.float32)},
    step=0,
  )
  net = Generator(32, mapping_layers=2, **FIELDS)
  expected = stylegan_state(net, 'mapping')['dense1.weight'].T
  np.testing.assert_array_equal(read[name], expected)


@pytest.mark.parametrize(
  'names, words, message',
  [
    (('synthesis',), TRAINED, 'either --mapping or --gaussian_fit'),
    (('synthesis', 'mapping', 'gaussian_fit'), TRAINED, 'one of the two'),
    (
      ('synthesis', 'mapping'),
      [*TRAINED, '--config.method.fit_samples=None'],
      'config.method.fit_samples is None and model.mapping_layers is 2',
    ),
    (
      ('synthesis', 'mapping'),
      [*TRAINED, '--config.model.latent_size=8'],
      r'synthesis.pt has blocks.4x4.epi1.style_mod.lin.weight of shape',
    ),
  ],
)
def test_files_of_another_network_leave_nothing_behind(
  names, words, message, files, tmp_path, capsys
):
  words = [f'--config={CONFIG}', *SMALL, *words, *given(files, *names)]
  assert run('import', tmp_path / 'run', *words) == 2
  error = capsys.readouterr().err
  assert re.search(message, error) and 'Traceback' not in error
  assert not (tmp_path / 'run').exists()


def test_other_methods_are_told_that_they_cannot_be_imported(
  files, tmp_path, capsys
):
  words = [f'--config={smoke_runs.CONFIGS / "smoke.py"}']
  words += given(files, 'synthesis')
  assert run('import', tmp_path / 'run', *words) == 2
  assert "has method.kind='diffusion'" in capsys.readouterr().err


@pytest.mark.parametrize('second', ['mapping', 'gaussian_fit'])
def test_a_folder_tells_its_generator(second, files):
  """The config then is that of configs/pulse_faces1024.py, but for its size."""
  folder = files['synthesis'].parent
  if second == 'gaussian_fit':
    files['mapping'].unlink()
  made = imported_stylegan.read(folder, name='s', lowres_size=8)
  layers = 2 if second == 'mapping' else 0
  model = dict(made.config.model)
  assert (model.pop('discriminator') is not None) == (second == 'mapping')
  assert model == {**FIELDS, 'mapping_layers': layers}
  net = Generator(32, mapping_layers=layers, **FIELDS)
  expected = stylegan.read_generator(
    net,
    synthesis=files['synthesis'],
    mapping=files['mapping'] if layers else None,
  )
  jax.tree.map(
    np.testing.assert_array_equal, made.params['generator'], expected
  )
  assert ('fit' in made.params) == (second == 'gaussian_fit')
  literal = loader.load(CONFIG)
  for section in ('optimizer', 'train', 'eval', 'ema', 'mesh', 'method'):
    if second == 'mapping':
      assert made.config[section] == literal[section], section


def test_the_command_takes_the_folder(files, tmp_path, capsys):
  folder, run = files['synthesis'].parent, tmp_path / 'run'
  files['mapping'].unlink()
  words = ['--from=stylegan', folder, f'--out={run}', '--lowres_size=8']
  with smoke_runs.on(1):
    assert smoke_runs.cdm('import', *words) == 0
    told = capsys.readouterr().out
    assert 'arrays are from the files' in told and 'at random' not in told
    assert smoke_runs.cdm('import', *words[:2], f'--out={tmp_path / "b"}') == 2
    assert 'give --lowres_size=N' in capsys.readouterr().err
  files['gaussian_fit'].unlink()
  with pytest.raises(ValueError, match='neither mapping.pt nor gaussian_fit'):
    imported_stylegan.read(folder, name='s', lowres_size=8)


def test_a_published_generator_is_recognized():
  """FFHQ's at 1024 pixels, by shapes alone; and one that halves otherwise."""
  sides = [4 * 2**n for n in range(9)]
  state = {
    f'blocks.{side}x{side}.epi1.noise.weight': np.zeros(min(16384 // side, 512))
    for side in sides
  }
  state['blocks.4x4.epi1.style_mod.lin.weight'] = np.zeros((1024, 512))
  mapping = {f'dense{i}.weight': np.zeros(0) for i in range(8)}
  assert stylegan.architecture(state, mapping) == dict(
    image_size=1024,
    latent_size=512,
    feature_base=8192,
    most_features=512,
    mapping_layers=8,
  )
  state['blocks.64x64.epi1.noise.weight'] = np.zeros(100)
  with pytest.raises(ValueError, match='64 pixels has 100 channels, and 256'):
    stylegan.architecture(state, mapping)
  with pytest.raises(ValueError, match='no StyleGAN'):
    stylegan.architecture({'a': np.zeros(1)}, {})
