"""Writes a study as a folder of files for any web server, without ours.

The page gives each person's answers as a file, answers_PERSON.json, in the form
of jsPsych's data, which `cdm study report --answers` reads.
"""

import importlib.resources
import json
import os
import pathlib
import shutil

from cdm.data.files import atomic_files
from cdm.evaluation.human import page_data, study_file
from cdm.evaluation.human.study_file import MEDIA, Study
from cdm.reporting import output_files

PAGE = ('index.html', 'study.css', 'shown.js', 'store.js', 'study.js')
DATA = 'study_data.js'
# Loaded before the others, and by the panel's page alone.
_MARK = '<script defer src="shown.js">'


def page_file(name: str) -> bytes:
  """Returns a file of the page, of those in `PAGE`."""
  files = importlib.resources.files('cdm.evaluation.human')
  return files.joinpath('page', name).read_bytes()


def write(
  study: Study,
  folder: str | os.PathLike[str],
  out: str | os.PathLike[str],
  lists: int,
) -> None:
  """Writes the folder.

  Args:
    study: the study.
    folder: its folder.
    out: path of a folder that is empty, or not there.
    lists: how many lists of trials there are. A person gets one at random, or
      that of the address: index.html?list=7.

  Raises:
    ValueError: the folder is not empty, or there is no list.
  """
  folder, out = pathlib.Path(folder), pathlib.Path(out)
  if out.is_dir() and any(out.iterdir()):
    raise ValueError(
      f'--out={out} is not empty; give the path of a new folder.'
    )
  if not 1 <= lists <= 10_000:
    raise ValueError(f'--lists={lists}: give 1 to 10,000 lists.')
  output_files.check_folder(out / MEDIA, given=out)
  output_files.check_folder(out / 'lists', given=out)
  for name in study_file.media(study):
    shutil.copyfile(folder / MEDIA / name, out / MEDIA / name)
  for number in range(lists):
    _write_script(
      out / 'lists' / f'{number}.js',
      'CDM_LIST',
      page_data.trials(study, number),
    )
  _write_script(
    out / DATA, 'CDM_STUDY', {**page_data.texts(study), 'lists': lists}
  )
  for name in PAGE:
    data = page_file(name).decode()
    if name == 'index.html':  # Last, so that a folder with it is whole.
      continue
    atomic_files.write_text_atomically(out / name, data)
  page = page_file('index.html').decode()
  script = f'<script defer src="{DATA}"></script>\n'
  atomic_files.write_text_atomically(
    out / 'index.html', page.replace(_MARK, script + _MARK)
  )


def _write_script(path, name, value):
  """Writes a value as a script, because a page of a file may read no JSON."""
  text = json.dumps(value).replace('<', '\\u003c')
  atomic_files.write_text_atomically(path, f'window.{name} = {text};\n')
