"""Reads and writes study.json, which holds a whole study but its answers.

A study asks persons about pictures: which of two was taken by a camera (2afc),
which of two they would rather keep (preference), or how good one is (rating).
Beside study.json lie media/, the pictures under names that tell nothing, and
answers.jsonl, once somebody has answered.
"""

import os
import pathlib
import re
from typing import Literal, TypedDict

from cdm.data.files import json_file

FILE = 'study.json'
MEDIA = 'media'
ANSWERS = 'answers.jsonl'
PERSONS = 'persons.jsonl'
ORIGINAL = 'original'  # the name of the photographs among the methods
# The pictures of a control trial, whose answer is known.
BETTER, WORSE = 'better', 'worse'
FORMAT = 1
TASKS = ('2afc', 'preference', 'rating')
Task = Literal['2afc', 'preference', 'rating']
# Of 1 to 5: the quality scale of Recommendation ITU-R BT.500.
RATINGS = ('bad', 'poor', 'fair', 'good', 'excellent')
QUESTIONS = {
  '2afc': 'Which picture was taken by a camera?',
  # After the first task of [SR3].
  '2afc with the low-res picture': 'Which of the two pictures is the better '
  'high-quality version of the low-resolution picture?',
  'preference': 'Which picture would you rather keep?',
  'rating': 'How good is this picture?',
}
# No picture of a study has another name, so that no request names a path.
MEDIA_NAME = re.compile(r'[0-9a-f]{32}\.png')


class Item(TypedDict):
  """The pictures of one scene.

  Attributes:
    name: name of its file in the folders that the study was made of.
    width, height: size of every picture but the low-res one, pixels.
    pictures: {method: file in media/}; in a control trial the methods are
      `BETTER` and `WORSE`.
    lowres: file of the low-res picture in media/, or None.
  """

  name: str
  width: int
  height: int
  pictures: dict[str, str]
  lowres: str | None


class Study(TypedDict):
  """What study.json holds.

  Attributes:
    format: version of this form.
    id: random name of the study, which every answer carries.
    task: one of `TASKS`.
    title, question: texts of the page.
    information: paragraphs that a person reads before agreeing.
    seconds: how long the pictures of a trial are shown.
    seed: seed of the orders and sides.
    methods: names of what is judged, in the order of the report.
    trials: judged trials per person, without those with a known answer.
    items: the scenes that are judged, in the order of the lists.
    practice: control trials before the first, with the answer told.
    catch: control trials between the others, which show who does not look.
  """

  format: int
  id: str
  task: Task
  title: str
  question: str
  information: list[str]
  seconds: float
  seed: int
  methods: list[str]
  trials: int
  items: list[Item]
  practice: list[Item]
  catch: list[Item]


def read(folder: str | os.PathLike[str]) -> Study:
  """Reads the study in a folder.

  Raises:
    ValueError: there is none, or it is of another version.
    DamagedFile: study.json is damaged.
  """
  path = pathlib.Path(folder) / FILE
  if not path.is_file():
    raise ValueError(
      f'{folder} holds no study: there is no {path}. Make one: `cdm study make '
      f'{folder} --methods=NAME=DIR ...`.'
    )
  study = json_file.read(
    path, Study, remedy='Make the study again: `cdm study make`.'
  )
  if study['format'] != FORMAT:
    raise ValueError(
      f'{path} has the form {study["format"]}, but this version of cdm reads '
      f'form {FORMAT}. Read it with the version that made it.'
    )
  wrong = [name for name in media(study) if not MEDIA_NAME.fullmatch(name)]
  if wrong:
    raise ValueError(
      f'{path} names a picture {wrong[0]!r}; pictures of a study have names of '
      '32 hexadecimal digits and .png. Make the study again.'
    )
  return study


def media(study: Study) -> list[str]:
  """Returns the names of all picture files of a study."""
  return [
    name
    for item in [*study['items'], *study['practice'], *study['catch']]
    for name in [*item['pictures'].values(), item['lowres']]
    if name is not None
  ]
