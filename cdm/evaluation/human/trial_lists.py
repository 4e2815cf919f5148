"""Says which pictures a person sees, in which order and on which side.

Person lists are numbered 0, 1, 2, ... without end, and a list depends on the
study and its number alone. List k takes the places k T to (k + 1) T - 1 of an
endless row that repeats the N scenes, T trials of T different scenes:

  place g:  scene g mod N,  condition (g div N + g mod N) mod M

A condition is what is compared: a method with the photograph, two methods, or
one method alone. So each scene is seen as often as any other up to one, every
condition of a scene as often as any other up to one, and nobody sees a scene
twice. Half of the trials of each condition have the first picture on the left.
"""

import itertools
import math
import random
from typing import Literal, NamedTuple

from cdm.evaluation.human.study_file import BETTER, ORIGINAL, WORSE, Item, Study


class Trial(NamedTuple):
  """One trial of a list.

  Attributes:
    part: 'practice', 'judged' or 'catch'.
    item: index of the scene in the study's list of that part.
    condition: index in `conditions`; -1 in trials with a known answer.
    shown: methods from left to right, two of them, or one that is rated.
  """

  part: Literal['practice', 'judged', 'catch']
  item: int
  condition: int
  shown: tuple[str, ...]


def conditions(study: Study) -> list[tuple[str, ...]]:
  """Returns what is compared: pairs of methods, or single ones."""
  if study['task'] == '2afc':
    return [(ORIGINAL, method) for method in study['methods']]
  if study['task'] == 'preference':
    return list(itertools.combinations(study['methods'], 2))
  return [(method,) for method in study['methods']]


def trial_list(study: Study, number: int) -> list[Trial]:
  """Returns the trials of a list, practice first.

  Args:
    study: the study.
    number: number of the list, from 0.
  """
  # Of Python's generators, only this one promises its numbers for all versions.
  draw = random.Random(f'{study["seed"]} {number}')
  compared = conditions(study)
  scenes, count = len(study['items']), study['trials']
  judged = []
  for place in range(number * count, (number + 1) * count):
    visit, item = divmod(place, scenes)
    condition = (visit + item) % len(compared)
    judged.append(Trial('judged', item, condition, compared[condition]))
  rest = _shuffled(_sided(judged, draw) + _controls(study, 'catch', draw), draw)
  return _controls(study, 'practice', draw) + rest


def item_of(study: Study, trial: Trial) -> Item:
  """Returns the scene of a trial."""
  part = 'items' if trial.part == 'judged' else trial.part
  return study[part][trial.item]


def stimulus(study: Study, trial: Trial) -> list[str]:
  """Returns the picture files of a trial, from left to right."""
  pictures = item_of(study, trial)['pictures']
  return [pictures[method] for method in trial.shown]


def full_round(study: Study) -> int:
  """Returns after how many lists every scene had every condition equally."""
  places = len(study['items']) * len(conditions(study))
  return places // math.gcd(places, study['trials'])


def _controls(study, part, draw):
  """Returns the trials whose answer is known."""
  pair = (BETTER, WORSE)
  if study['task'] != 'rating':
    shown = [Trial(part, i, -1, pair) for i in range(len(study[part]))]
    return _sided(shown, draw)
  # The blurred picture of a catch trial has to get a low rating; practice shows
  # what the scale is for.
  first = 0 if part == 'practice' else 1
  return [
    Trial(part, i, -1, (pair[(first + (part == 'practice') * i) % 2],))
    for i in range(len(study[part]))
  ]


def _sided(trials, draw):
  """Swaps the sides of half of the trials of each condition."""
  swapped, extra = [], draw.random() < 0.5
  by_condition = {}
  for trial in trials:
    by_condition.setdefault(trial.condition, []).append(trial)
  for group in by_condition.values():
    half = len(group) // 2
    if len(group) % 2:  # One of two such conditions has one more on the left.
      half, extra = half + extra, not extra
    for n, trial in enumerate(_shuffled(group, draw)):
      swapped.append(
        trial._replace(shown=trial.shown[::-1]) if n < half else trial
      )
  return swapped


def _shuffled(values, draw):
  keys = [draw.random() for _ in values]
  return [values[i] for i in sorted(range(len(values)), key=keys.__getitem__)]
