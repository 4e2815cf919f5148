"""A folder in the layout of Hugging Face, read by YAML's own parser."""

import json
import pathlib

import numpy as np
import pytest
import yaml
from support import smoke_runs

from cdm.checkpointing import packed_stage
from cdm.config import loader
from cdm.sampling import model_card
from cdm.training import imported_stage

ROOT = pathlib.Path(__file__).resolve().parents[2]
PHOTO = ROOT / 'benchmarks' / 'weights' / 'photo_faithful.safetensors'
# As `cdm evaluate --out` writes it, in short.
ROW = {
  'n': 5,
  'samples': 'runs/faithful@eval',
  'reference': 'Set5: "4x"',
  'psnr': 30.856,
  'ssim': 0.8741,
}


def export(out, *words):
  return smoke_runs.cdm(
    'export', '--to=huggingface', f'--workdir={PHOTO}', f'--out={out}', *words
  )


def test_the_card_has_metadata_figures_data_and_licence(tmp_path):
  (tmp_path / 'row.json').write_text(json.dumps(ROW), encoding='utf-8')
  (tmp_path / 'card.md').write_text('## Limits\n\nFaces.', encoding='utf-8')
  out = tmp_path / 'out'
  assert export(
    out, '--license=cc-by-4.0', f'--figures={tmp_path / "row.json"}',
    f'--note=card={tmp_path / "card.md"}',
  ) == 0  # fmt: skip
  assert {path.name for path in out.iterdir()} == {
    'README.md', 'config.json', 'model.safetensors'
  }  # fmt: skip
  text = (out / 'README.md').read_text(encoding='utf-8')
  _, head, body = text.split('---\n', 2)
  metadata = yaml.safe_load(head)
  assert metadata['license'] == 'cc-by-4.0'
  assert metadata['library_name'] == 'cdm'
  assert metadata['pipeline_tag'] == 'image-to-image'
  (model,) = metadata['model-index']
  found = {
    result['metrics'][0]['type']: result['metrics'][0]['value']
    for result in model['results']
  }
  assert found == {'psnr': 30.86, 'ssim': 0.874}
  assert 'against Set5: "4x"' in model['results'][0]['dataset']['name']
  for part in (
    '584,368 parameters in float32', 'from 32 to 128 pixels', '## Limits',
    '| PSNR, dB | 30.86 |', 'Credits:', '"photo_crops"',
    'passed on under `cc-by-4.0`', 'cdm upscale --workdir=model.safetensors',
  ):  # fmt: skip
    assert part in body, part
  given = packed_stage.read(PHOTO)
  assert loader.read_json(out / 'config.json') == loader.from_json(
    given.config, PHOTO
  )
  made = imported_stage.read(out, tmp_path / 'run')
  for name, array in given.arrays.items():
    np.testing.assert_array_equal(made.packed.arrays[name], array)
  assert made.packed.notes['credits'] == given.notes['credits']


def test_a_card_without_figures_says_so():
  c = loader.load(smoke_runs.CONFIGS / 'smoke.py', [])
  card = model_card.Card(c, 10, 'float16', 3, 'mit', (), {})
  text = model_card.text(card)
  metadata = yaml.safe_load(text.split('---\n')[1])
  assert metadata['pipeline_tag'] == 'unconditional-image-generation'
  assert 'model-index' not in metadata
  assert 'None were measured' in text and 'of 4 classes' in text
  assert 'cdm sample --config=config.json' in text


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    ([], '--license is missing'),
    (['--license=Apache 2'], 'give an abbreviation of small letters'),
    (['--license=mit', '--figures=none.json'], '--figures=none.json: '),
    (['--license=mit', f'--figures={ROOT / "README.md"}'], 'README.md'),
    (['--license=mit', '--tile=3'], '--tile is for --to=stablehlo'),
  ],
)
def test_a_card_that_cannot_be_written_is_refused(
  tmp_path, capfd, words, message
):
  code = export(tmp_path / 'out', *words)
  assert code in (2, 4) and message in capfd.readouterr().err
  assert not (tmp_path / 'out').exists()
