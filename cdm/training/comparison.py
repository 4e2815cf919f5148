"""Shows an enlarged photograph on the page of `cdm report`."""

import os
import pathlib

from cdm.data.printable_name import printable
from cdm.reporting import html_page, image_files

NAME = 'enlarged.png'  # of its copy beside the page
CAPTION = (
  'The most detailed part of a photograph at 1:1: what was given, bicubic '
  'interpolation, and what the model made of it.'
)


def checked(path: str | os.PathLike) -> str:
  """Returns the path of a comparison, which must be one.

  Args:
    path: PNG file that `cdm upscale --compare` wrote.

  Raises:
    ValueError: it is something else.
  """
  path = pathlib.Path(path)
  if not path.name.endswith(image_files.COMPARED) or not path.is_file():
    raise ValueError(
      f'--enlarged={printable(path)} is no comparison; give the file '
      f'NAME{image_files.COMPARED} that `cdm upscale --compare` wrote.'
    )
  return str(path)


def section(path: str) -> html_page.Section:
  """Returns the section of the page.

  Args:
    path: what `checked` returned.
  """
  png = pathlib.Path(path).read_bytes()
  figure = html_page.image(png, CAPTION, alt='An enlarged photograph')
  return html_page.Section('A photograph, enlarged', (figure,))
