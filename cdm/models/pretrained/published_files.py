"""Downloads the files of a published network."""

import pathlib

from cdm.models.pretrained import download
from cdm.models.pretrained.published_unets import Preset

# Of a folder of diffusers, as it was written in 2022; the weights are last.
FOLDER = ('config.json', 'scheduler_config.json', 'diffusion_pytorch_model.bin')
_BYTES = 4  # of a parameter
_SPARE = 200 << 20


def fetch(name: str, preset: Preset) -> pathlib.Path:
  """Downloads a file or folder, unless it is there; a broken one continues.

  Args:
    name: of the preset.
    preset: what is known of it.

  Returns:
    Path of the file or folder, in the user's cache.

  Raises:
    ValueError: it can only be fetched with a browser, or its checksum differs.
    OSError: it cannot be downloaded.
  """
  if preset.page:
    raise ValueError(
      f'{name} lies on a page for browsers, {preset.where}; download it there '
      'and give the path of the file after --from.'
    )
  free = (preset.num_bytes or preset.parameters * _BYTES) + _SPARE
  flag = 'the path after --from'
  if not preset.where.endswith('/'):
    return download.fetch(preset.where, preset.sha256, flag=flag, free=free)
  cache = f'weights-{name.rpartition(":")[2]}'
  paths = [
    download.fetch(preset.where + file, None, cache=cache, flag=flag, free=free)
    for file in FOLDER
  ]
  return paths[0].parent
