"""Drawing that begins at a noised image: --start_level, --start_images."""

import json

import numpy as np
import pytest
from PIL import Image
from support import smoke_runs

from cdm.config import loader, redrawn_sampler
from cdm.evaluation import image_source
from cdm.evaluation.image_selection import Selection
from cdm.sampling import start_images

CASCADE = smoke_runs.CONFIGS / 'smoke_cascade.py'
SIDE = loader.load(smoke_runs.CONFIGS / 'smoke.py').pipeline.image_size


@pytest.fixture
def pictures(tmp_path):
  """-> folder of four pictures in the size of the base model."""
  folder = tmp_path / 'pictures'
  folder.mkdir()
  for n in range(4):
    pixels = np.full((SIDE, SIDE, 3), 60 * n, np.uint8)
    Image.fromarray(pixels).save(folder / f'{n}.png')
  return folder


def sample(out, *words):
  return smoke_runs.cdm(
    'sample',
    f'--config={CASCADE}',
    f'--workdir={smoke_runs.trained()}',
    f'--out={out}',
    *words,
  )


def pixels(path):
  return np.asarray(Image.open(path)).astype(int)


def test_a_low_level_keeps_the_result_close_to_the_input(tmp_path, capsys):
  """The network is hardly trained, so that it alone would draw anything."""
  distance, evaluations = {}, {}
  for level in (0.01, 0.3, 1):
    out = tmp_path / f'{level}'
    words = [f'--workdir={smoke_runs.trained() / "sr"}', '--held_out=2']
    words += [f'--out={out}', f'--start_level={level}', '--steps=4']
    assert smoke_runs.cdm('upscale', *words) == 0
    told = capsys.readouterr().err
    assert f' from level {level} on, ' in told
    evaluations[level] = int(told.partition(' on, ')[2].split()[0])
    manifest = json.loads((out / 'upscaling.json').read_text(encoding='utf-8'))
    assert manifest['start_level'] == level
    distance[level] = np.mean(
      [
        abs(pixels(path) - pixels(out / 'bicubic' / path.name)).mean()
        for path in sorted((out / 'upscaled').glob('*.png'))
      ]
    )
  assert distance[0.01] < 5 and distance[0.01] < distance[1] / 2, distance
  assert evaluations[0.01] < evaluations[0.3] <= evaluations[1] == 4
  words = [words[0], '--held_out=2', f'--out={tmp_path / "0.3"}']
  assert smoke_runs.cdm('upscale', *words, '--start_level=0.4') == 2
  assert 'start_level' in capsys.readouterr().err


def test_each_image_begins_at_its_own(pictures, tmp_path):
  flags = (f'--start_images={pictures}', '--start_level=0.005')
  assert sample(tmp_path / 'few', '--num=2', '--batch_size=1', *flags) == 0
  assert sample(tmp_path / 'all', '--num=4', *flags) == 0
  for n in range(4):
    image = pixels(tmp_path / 'all' / 'base' / f'{n:06d}.png')
    np.testing.assert_allclose(image.mean(), 60 * n, atol=25)
  for n in range(2):  # whatever the batch
    name = f'base/{n:06d}.png'
    np.testing.assert_allclose(
      pixels(tmp_path / 'few' / name), pixels(tmp_path / 'all' / name), atol=1
    )
  text = (tmp_path / 'all' / 'sampling.json').read_text(encoding='utf-8')
  manifest = json.loads(text)
  assert manifest['start_images']['set'] == str(pictures)
  base, sr = manifest['stages']
  assert base['start_level'] == 0.005 and 'start_level' not in sr


def test_other_images_do_not_continue_a_folder(pictures, tmp_path, capsys):
  flags = (f'--start_images={pictures}', '--start_level=0.5', '--num=1')
  assert sample(tmp_path / 'out', *flags) == 0
  Image.new('RGB', (SIDE, SIDE), 'red').save(pictures / '0.png')
  capsys.readouterr()
  assert sample(tmp_path / 'out', *flags) == 2
  assert 'start_images' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--num=5', '--start_level=0.5'], r'--num=5, but --start_images=.* has 4'),
    (['--num=1'], r'--start_images=SET and --start_level=L belong together'),
    (['--num=1', '--start_level=0'], r'--start_level=0: .* above 0 and up to'),
    (['--num=1', '--start_level=1.5'], r'--start_level=1\.5: give the level'),
    (['--num=1', '--start_level=half'], r'--start_level=half: give the level'),
    (
      ['--num=1', '--start_level=1', '--start_images={runs}/sr@eval'],
      'would have to be drawn first',
    ),
    (
      [
        *('--num=1', '--start_level=1'),
        '--start_images={configs}/smoke_sr.py:eval',
      ],
      r'image 0 has \d+x\d+ pixels, but the base model draws',
    ),
  ],
)
def test_what_drawing_cannot_begin_at_is_refused(
  pictures, tmp_path, capsys, words, message
):
  named = {'runs': smoke_runs.trained(), 'configs': smoke_runs.CONFIGS}
  given = [f'--start_images={pictures}', *(w.format(**named) for w in words)]
  assert sample(tmp_path / 'out', *given) == 2
  with pytest.raises(ValueError, match=message):
    raise ValueError(capsys.readouterr().err)
  assert not (tmp_path / 'out').exists()


def test_the_data_of_a_config_are_taken_in_their_order():
  config = smoke_runs.CONFIGS / 'smoke.py'
  few, all_of_them = (
    start_images.open_images(config, 'eval', num=num, size=SIDE)
    for num in (2, 3)
  )
  np.testing.assert_array_equal(
    few.rows(np.array([1, 0])), all_of_them.rows(np.arange(3))[[1, 0]]
  )


def test_a_method_without_noise_levels_is_told(tmp_path, capsys):
  config = smoke_runs.CONFIGS / 'smoke_sr.py'
  words = [f'--workdir=bicubic:{config}', '--held_out=1', f'--out={tmp_path}']
  assert smoke_runs.cdm('upscale', *words, '--start_level=0.5') == 2
  told = capsys.readouterr().err
  assert '--start_level=0.5: bicubic has no sampler and no noise levels' in told


def test_a_base_model_has_nothing_to_begin_at_where_none_is_given():
  selection = Selection(1, redraws=redrawn_sampler.parse(None, None, '0.5'))
  samples = f'{CASCADE}@{smoke_runs.trained()}'
  with pytest.raises(ValueError, match="stage 'base' has no low-res image to"):
    image_source.resolve(samples, selection)
