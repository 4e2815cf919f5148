"""Appends answers to a file that survives a kill, and reads them back.

An answer is on the disk before the person's page hears that it was kept. The
columns are those of jsPsych (trial_index, trial_type, rt, response, stimulus,
time_elapsed), and some of our own. No answer tells who gave it, from where or
at what time of which day: a person is a random number.
"""

import json
import math
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from cdm.data.files import json_file
from cdm.data.files.damaged_file import DamagedFile
from cdm.evaluation.human import trial_lists
from cdm.evaluation.human.study_file import RATINGS, Study
from cdm.reporting import jsonl

TRIAL_TYPES = {2: 'two-pictures', 1: 'one-picture'}  # by how many are shown
MOST_MILLISECONDS = 24 * 3600 * 1000.0
MOST_LIST = 1_000_000


class Answer(TypedDict):
  """A row of answers.jsonl.

  Attributes:
    study: id of the study.
    person: random name of the person.
    list: number of the person's list of trials.
    trial_index: index in it.
    trial_type: a value of `TRIAL_TYPES`.
    stimulus: picture files in media/, from left to right.
    response: 0 for left, 1 for right; of a rating, 1 to 5.
    rt: from the first frame with the pictures to the answer, ms.
    time_elapsed: since the person began, or came back, ms.
    shown_ms: from the first frame with the pictures to the first without, ms.
    frames: how many frames of the screen had them.
    hidden: whether the page was not in front during the trial.
    zoom: pixels of the screen per pixel of a picture, a whole number.
    device_pixel_ratio: pixels of the screen per CSS pixel.
    viewport: [width, height] of the window, CSS pixels.
  """

  study: str
  person: str
  list: int
  trial_index: int
  trial_type: str
  stimulus: list[str]
  response: int
  rt: float
  time_elapsed: float
  shown_ms: float
  frames: int
  hidden: bool
  zoom: int
  device_pixel_ratio: float
  viewport: list[float]


COLUMNS = tuple(Answer.__annotations__)


def checked(row: Any, study: Study) -> Answer:
  """Returns an answer, with nothing in it that is not of `Answer`.

  Args:
    row: what JSON gave.
    study: the study that it should be of.

  Raises:
    ValueError: it is no answer to a trial of this study.
  """
  wrong = json_file.problem(row, Answer, 'the answer') or _wrong(row, study)
  if wrong:
    raise ValueError(f'This is no answer to this study: {wrong}.')
  answer: Any = {name: row[name] for name in COLUMNS}
  return answer


def _wrong(row, study):
  if row['study'] != study['id']:
    return f'it is of the study {row["study"][:40]!r}'
  if not 0 <= row['list'] < MOST_LIST:
    return f'there is no list {row["list"]}'
  trials = trial_lists.trial_list(study, row['list'])
  if not 0 <= row['trial_index'] < len(trials):
    return f'the list has no trial {row["trial_index"]}'
  shown = trial_lists.stimulus(study, trials[row['trial_index']])
  if row['stimulus'] != shown:
    return f'trial {row["trial_index"]} shows other pictures'
  if row['trial_type'] != TRIAL_TYPES[len(shown)]:
    return 'its trial_type is another'
  known = range(2) if len(shown) == 2 else range(1, len(RATINGS) + 1)
  if row['response'] not in known:
    return f'its response is {row["response"]}'
  times = [row['rt'], row['time_elapsed'], row['shown_ms'], *row['viewport']]
  numbers = [*times, row['frames'], row['zoom'], row['device_pixel_ratio']]
  if len(row['viewport']) != 2 or len(row['person']) > 64:
    return 'its viewport or person has another length'
  if not all(math.isfinite(n) and 0 <= n <= MOST_MILLISECONDS for n in numbers):
    return 'a number is out of range'
  return None


class DurableRows:
  """A file of JSON lines, open for appending by any thread."""

  def __init__(self, path: str | os.PathLike[str]):
    """Opens the file, and removes what a kill left of a half-written row."""
    self._path = pathlib.Path(path)
    self._lock = threading.Lock()
    jsonl.remove_incomplete_line(self._path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    self._file = os.open(self._path, flags, 0o600)
    self._sync_folder()

  def append(self, row: Mapping[str, Any]) -> None:
    """Adds a row, and returns when it is on the disk.

    Raises:
      OSError: it could not be written; the file is as before.
    """
    line = (json.dumps(row, allow_nan=False) + '\n').encode()
    with self._lock:
      before = os.fstat(self._file).st_size
      try:
        written = os.write(self._file, line)
        if written != len(line):
          raise OSError(f'{self._path}: the disk is full.')
        os.fsync(self._file)
      except OSError:
        os.ftruncate(self._file, before)
        raise

  def close(self) -> None:
    """Closes the file."""
    os.close(self._file)

  def _sync_folder(self):
    """Makes the name of a new file last too."""
    folder = os.open(self._path.parent, os.O_RDONLY)
    try:
      os.fsync(folder)
    finally:
      os.close(folder)


def read(paths: Sequence[str | os.PathLike[str]], study: Study) -> list[Answer]:
  """Reads the answers in files and folders, each trial of a person once.

  Args:
    paths: .jsonl files, as the server appends them; .json files, as the page of
      an online panel saves them; or folders of those.
    study: the study that they are of.

  Raises:
    ValueError: a path does not exist, or an answer is of another study.
    DamagedFile: a file is damaged.
  """
  found: dict[tuple[str, int], Answer] = {}
  for path in _files(paths):
    for number, row in enumerate(_rows(path), start=1):
      try:
        answer = checked(row, study)
      except ValueError as error:
        raise ValueError(f'{path}, answer {number}: {error}') from error
      found.setdefault((answer['person'], answer['trial_index']), answer)
  return list(found.values())


def _files(paths):
  for path in map(pathlib.Path, paths):
    if path.is_dir():
      yield from sorted(
        p for p in path.iterdir() if p.suffix in ('.json', '.jsonl')
      )
    elif path.exists():
      yield path
    else:
      raise ValueError(f'{path} does not exist; give files with answers.')


def _rows(path):
  if path.suffix == '.jsonl':
    return jsonl.read(path)
  remedy = 'Ask for the file again, or leave it out.'
  rows = json_file.read(path, Any, remedy=remedy)
  if not isinstance(rows, list):
    raise DamagedFile(f'{path} is damaged: it holds no list. {remedy}')
  return rows
