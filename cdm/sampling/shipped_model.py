"""Finds the model that lies in the package, for photographs."""

import pathlib

import cdm

FOLDER = pathlib.Path(cdm.__file__).parent / 'shipped'
PHOTO = 'photo.safetensors'


def photo() -> pathlib.Path:
  """Returns the path of the packed stage that enlarges photographs.

  Raises:
    ValueError: this installation has none.
  """
  path = FOLDER / PHOTO
  if not path.is_file():
    raise ValueError(
      'Give --workdir, the work directory of a trained stage or a file that '
      '`cdm export` wrote: no model lies in this installation.'
    )
  return path
