"""Reads a folder of StyleGAN's published files, and makes a stage of them.

The folder is the one into which [PULSE]'s program downloads: synthesis.pt, and
mapping.pt or gaussian_fit.pt. The generator follows from the shapes.
"""

import pathlib
from typing import Any

from cdm.config import imported_pulse, stage
from cdm.models.pretrained import pytorch_file, stylegan
from cdm.training import imported_weights
from cdm.training.imported_unet import Imported

FAMILY = 'stylegan'
SYNTHESIS, MAPPING, FIT = 'synthesis.pt', 'mapping.pt', 'gaussian_fit.pt'


def read(path: pathlib.Path, *, name: str, lowres_size: int | None) -> Imported:
  """Reads a folder; of mapping.pt and gaussian_fit.pt the first is taken.

  Args:
    path: the folder.
    name: of the stage that is made.
    lowres_size: side of the pictures that it enlarges.

  Raises:
    ValueError: a file is missing or of another network, or the size is.
    DamagedWeights: a file is no PyTorch state dict.
    OSError: a file cannot be read.
  """
  if not (path / SYNTHESIS).is_file():
    raise ValueError(
      f'{path} is no folder with a {SYNTHESIS}; give the folder in which it '
      f'lies with {MAPPING} or {FIT}.'
    )
  second = next((f for f in (MAPPING, FIT) if (path / f).is_file()), None)
  if second is None:
    raise ValueError(
      f'{path} has neither {MAPPING} nor {FIT}; add one of them.'
    )
  if lowres_size is None:
    raise ValueError(
      f'{path} does not tell which pictures are to be enlarged; give '
      '--lowres_size=N, e.g. --lowres_size=16.'
    )
  mapping = pytorch_file.read(path / second) if second == MAPPING else {}
  try:
    generator: dict[str, Any] = stylegan.architecture(
      pytorch_file.read(path / SYNTHESIS), mapping
    )
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None
  config = imported_pulse.make(
    name,
    image_size=generator.pop('image_size'),
    lowres_size=lowres_size,
    generator=generator,
  )
  params = imported_weights.read_stylegan(
    stage.stage(config),
    synthesis=path / SYNTHESIS,
    mapping=path / MAPPING if second == MAPPING else None,
    gaussian_fit=path / FIT if second == FIT else None,
  )
  return Imported(config, params)
