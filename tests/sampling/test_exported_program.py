"""Programs that draw what cdm draws, in a process that has no cdm."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from support import random_params, smoke_runs

from cdm.config import stage as stages
from cdm.methods import guided_denoiser, lowres_conditioning
from cdm.ops import keys as ops_keys
from cdm.ops import pixels, resize
from cdm.sampling import cascade, exported_program, restore, upscaler
from cdm.sampling.restored_parameters import Checkpoint

# What a stranger writes, with JAX and NumPy alone.
STRANGER = """
import sys
import jax.export, numpy as np
for name in sys.argv[1:]:
  with open(name + '.stablehlo', 'rb') as file:
    program = jax.export.deserialize(bytearray(file.read()))
  assert sorted(program.platforms) == ['cpu', 'cuda', 'tpu']
  found = program.call(**np.load(name + '.npz'))
  found = found if isinstance(found, dict) else {'images': found}
  np.savez(name + '_out.npz', **found)
assert not any(m.split('.')[0] in ('cdm', 'flax') for m in sys.modules)
"""


def restored(name):
  with smoke_runs.on(1):
    return restore.restored_stage(
      Checkpoint(smoke_runs.trained() / name), name=name
    )[0]


def test_a_process_without_cdm_draws_the_same_images(tmp_path, capfd):
  """Of classes, and without one; the number of images is left open."""
  rng = np.random.default_rng(0)
  lowres = rng.integers(0, 256, (3, 8, 8, 3), np.uint8)
  numbers = {'seed': np.uint32(7), 'indices': np.array([0, 5, 9], np.uint32)}
  label = {'label': np.array([1, 4, 0], np.int32)}  # 4 is the null class
  x_t = rng.standard_normal((3, 16, 16, 3)).astype(np.float32)
  given = {
    'sampler': {**numbers, **label},
    'upscaler': {**numbers, **label, 'lowres': lowres},
    'denoiser': {
      'x_t': x_t,
      'logsnr': np.array([-3.0, 0.5, 4.0], np.float32),
      'lowres': (lowres / 127.5 - 1).astype(np.float32),
      'level': np.array([0.0, 0.2, 0.1], np.float32),
      **label,
    },
  }
  for kind, inputs in given.items():
    workdir = smoke_runs.trained() / ('base' if kind == 'sampler' else 'sr')
    assert smoke_runs.cdm(
      'export', '--to=stablehlo', f'--workdir={workdir}', f'--program={kind}',
      f'--out={tmp_path / kind}.stablehlo',
    ) == 0  # fmt: skip
    told = capfd.readouterr().out
    for name in inputs:
      assert f'{name}: ' in told
    assert 'label: int32 [n]' in told
    np.savez(tmp_path / f'{kind}.npz', **inputs)
  outside = str(pathlib.Path(cascade.__file__).parents[2])
  code = f'import sys; assert {outside!r} not in sys.path\n{STRANGER}'
  subprocess.run(
    [sys.executable, '-P', '-c', code, *given],
    cwd=tmp_path,
    check=True,
    env={'JAX_PLATFORMS': 'cpu', **smoke_runs.programs()},
  )
  base, sr = restored('base'), restored('sr')
  drawn = cascade.sampler([base])(7, numbers['indices'], label['label'])[-1]
  enlarge = upscaler.stage_upscaler(sr, None, batch_size=8)
  pairs = ops_keys.seed_pairs(7, numbers['indices'])
  expected = {
    'sampler': {'images': drawn},
    'upscaler': {'images': enlarge(lowres, keys=pairs, label=label['label'])},
    'denoiser': predicted(sr, **given['denoiser']),
  }
  for kind, arrays in expected.items():
    found = np.load(tmp_path / f'{kind}_out.npz')
    assert sorted(found.files) == sorted(arrays)
    for name, array in arrays.items():
      assert found[name].dtype == array.dtype and found[name].any()
      if kind == 'denoiser':
        np.testing.assert_allclose(found[name], array, atol=2e-5, rtol=2e-5)
      else:  # a rounding to a neighbouring level is possible
        apart = np.abs(found[name].astype(int) - np.asarray(array, int))
        assert apart.max() <= 1 and (apart > 0).mean() < 1e-3


def predicted(stage, *, x_t, logsnr, lowres, level, label):
  """-> what cdm's own denoiser predicts, by the methods that training uses."""
  c = restore.loader.read_json(smoke_runs.trained() / 'sr' / 'config.json')
  built = stages.stage(c)
  upsampled = lowres_conditioning.upsample(lowres, 16, built.lowres)
  known = guided_denoiser.Conditions(label, upsampled, level)
  found = jax.jit(lambda p, x, s: built.method.guiding(p, known)(x, s))(
    stage.params, x_t, logsnr
  )
  return {'x_0': found.x_0, 'eps': found.eps}


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    ('--program=sampler', 'a super-resolution stage, which has no sampler'),
    ('--program=drawer', 'known are denoiser, sampler, upscaler'),
    ('--program=denoiser --steps=4', '--steps is for a program that draws'),
    ('--tile=12', 'is a network for low-res images of 8 pixels'),
    ('--platforms=cpu,gpu', 'give some of cpu, cuda, tpu'),
    ('--batch_size=0', 'must be at least 1'),
    ('--note=a=b', '--note is for --to=stage'),
    ('--level=0.99', 'was trained on levels up to'),
  ],
)
def test_a_program_that_a_stage_has_not_is_refused(
  tmp_path, capfd, words, message
):
  out = tmp_path / 'sr.stablehlo'
  sr = smoke_runs.trained() / 'sr'
  assert smoke_runs.cdm(
    'export', '--to=stablehlo', f'--workdir={sr}', f'--out={out}',
    *words.split(),
  ) == 2  # fmt: skip
  assert message in capfd.readouterr().err
  assert not list(tmp_path.iterdir())


def compared(params, x):
  return x + params if x.shape[0] > 4 else x


def counted(params, x):
  return x + params * int(x.shape[0])


@pytest.mark.parametrize('call', [compared, counted])
def test_a_program_that_asks_for_its_number_of_images_is_refused(call):
  """A number in the place of the open one is what helps."""
  given = exported_program.Program(call, np.float32(1), {'x': (('n',), 'f4')})
  with pytest.raises(ValueError, match='give --batch_size=N'):
    exported_program.lowered(given)
  lowered = exported_program.lowered(given, batch_size=8, platforms=['cpu'])
  assert lowered.in_avals[0].shape == (8,) and lowered.platforms == ('cpu',)


def test_parameters_of_half_the_size_make_half_the_file():
  values = np.linspace(0, 1, 4096, dtype=np.float32)
  given = exported_program.Program(
    lambda params, x: params * x, values, {'x': ((), 'f4')}
  )
  sizes = []
  for dtype in ('float32', 'float16'):
    lowered = exported_program.lowered(given, dtype=dtype, platforms=['cpu'])
    sizes.append(len(lowered.serialize()))
    found = lowered.call(x=np.float32(2))
    np.testing.assert_array_equal(
      found, 2 * values.astype(dtype).astype(np.float32)
    )
  # The rest of a file is the program.
  assert sizes[0] - sizes[1] == pytest.approx(values.nbytes / 2, rel=0.05)


def test_a_photo_network_takes_tiles_of_any_size_and_their_damage():
  """The factor is told by the program; damage 0 is what a stage draws with."""
  stage, built = photo_stage()
  given = exported_program.upscaler(stage, 6)
  assert given.inputs['lowres'][0] == ('n', 6, 6, 3)
  lowres = np.random.default_rng(1).integers(0, 256, (1, 6, 6, 3), np.uint8)
  damage = np.array([[0.4, 0.2, 0.1]], np.float32)
  found = jax.jit(given.call)(stage.params, lowres, damage)
  levels = np.array([[2.0, 0.4, 0.2, 0.1]], np.float32)
  enlarged = resize.resize(pixels.to_float(lowres), 24, method='bicubic')
  image = jax.jit(
    lambda p, x: built.net.apply({'params': p}, x, levels, train=False).image
  )(stage.params, enlarged)
  apart = np.abs(
    np.asarray(found, int) - np.asarray(pixels.to_uint8(image), int)
  )
  assert found.dtype == np.uint8 and apart.max() <= 1


def photo_stage():
  """-> a stage of the photo model in small, and what its config describes."""
  c = restore.loader.load(
    smoke_runs.CONFIGS / 'photo_faithful.py',
    [('model.features', '8'), ('model.num_blocks', '1')],
  )
  built = stages.stage(c)
  params = random_params.moved(jax.jit(built.method.init)(jax.random.key(0)))
  return cascade.Stage.of(built, params, None, name='photo'), built
