"""Knows the persons of a study that is being served, and gives out lists.

A person's page holds a secret of 128 bits; files and memory hold its SHA-256
alone, so that nobody can answer for a person whose name is in a file.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from cdm.evaluation.human import answer_file, trial_lists
from cdm.evaluation.human.answer_file import Answer
from cdm.evaluation.human.study_file import Study

MOST_PERSONS = 10_000  # in one study, so that nobody can fill the memory
# The list of a person who has not answered for so long is given out again.
RELEASE_SECONDS = 3600.0


class TooManyPersons(Exception):
  """Nobody else can begin."""


class Begun(TypedDict):
  """A row of persons.jsonl: who has begun with which list."""

  person: str
  list: int


class Person(NamedTuple):
  """One person.

  Attributes:
    name: what the answers call the person.
    list: number of the list.
    answered: indices of the trials that have an answer.
  """

  name: str
  list: int
  answered: set[int]


class PersonRegister:
  """All persons of a study; not safe for several threads at once."""

  def __init__(
    self,
    study: Study,
    begun: Sequence[Begun] = (),
    answers: Sequence[Answer] = (),
    clock: Callable[[], float] = time.monotonic,
  ):
    """Takes up what was answered before.

    Args:
      study: the study.
      begun: the persons on the disk.
      answers: the answers on the disk.
      clock: seconds, for the tests.
    """
    self._study, self._clock = study, clock
    self._trials = len(trial_lists.trial_list(study, 0))
    self._persons: dict[str, Person] = {}
    self._seen: dict[str, float] = {}
    for row in [*begun, *answers]:
      name = row['person']
      self._persons.setdefault(name, Person(name, row['list'], set()))
      self._seen[name] = clock()
    for answer in answers:
      self._persons[answer['person']].answered.add(answer['trial_index'])

  def find(self, secret: object) -> Person | None:
    """Returns the person of a secret, or None."""
    if not isinstance(secret, str):
      return None
    return self._persons.get(_name(secret))

  def begin(self) -> tuple[str, Person]:
    """Returns the secret of a new person, and the person.

    The list is the first that nobody has finished or is working on.

    Raises:
      TooManyPersons: there are too many.
    """
    if len(self._persons) >= MOST_PERSONS:
      raise TooManyPersons
    now = self._clock()
    taken = {
      person.list
      for name, person in self._persons.items()
      if len(person.answered) == self._trials
      or now - self._seen[name] < RELEASE_SECONDS
    }
    number = next(n for n in range(len(taken) + 1) if n not in taken)
    secret = secrets.token_urlsafe(16)
    person = Person(_name(secret), number, set())
    self._persons[person.name] = person
    self._seen[person.name] = now
    return secret, person

  def answer(self, person: Person, row: object) -> Answer | None:
    """Checks a person's answer.

    Args:
      person: who answers.
      row: what was sent. Its person and list are replaced by the known ones.

    Returns:
      The answer, to be written; None if this trial has one already.

    Raises:
      ValueError: it is no answer to a trial of the person's list.
    """
    self._seen[person.name] = self._clock()
    if isinstance(row, dict):
      row = {**row, 'person': person.name, 'list': person.list}
    answer = answer_file.checked(row, self._study)
    return None if answer['trial_index'] in person.answered else answer


def _name(secret: str) -> str:
  return hashlib.sha256(secret.encode()).hexdigest()[:16]
