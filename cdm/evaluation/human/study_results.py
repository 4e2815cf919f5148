"""Computes the results of a study: rates, opinions, strengths, with intervals.

Every interval holds 95%: Wilson's for one person, and the bootstrap over
persons and pictures for all of them, see `cluster_bootstrap`.
"""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from cdm.evaluation.human import (
  bradley_terry,
  cluster_bootstrap,
  scored_trials,
  trial_lists,
  wilson,
)
from cdm.evaluation.human.answer_file import Answer
from cdm.evaluation.human.scored_trials import Judge, Scored
from cdm.evaluation.human.study_file import RATINGS, Study
from cdm.evaluation.metrics import bootstrap

# Resamples of a fit, each of which is fitted again.
FITS = 500


def results(study: Study, answers: Sequence[Answer]) -> dict[str, Any]:
  """Returns the results as JSON holds them.

  Returns:
    {'study', 'task', 'persons': one entry each, 'kept': the results of the
    persons that count, 'everyone': those of all persons}; see `analysis`.
  """
  scored = scored_trials.score(study, answers)
  judges = scored_trials.judges(study, scored)
  kept = scored_trials.that_count(scored, judges, excluded=False)
  everyone = scored_trials.that_count(scored, judges, excluded=True)
  return {
    'study': study['id'],
    'task': study['task'],
    'methods': study['methods'],
    'persons': [_person(study, j, everyone) for j in judges.values()],
    'kept': analysis(study, kept),
    'everyone': analysis(study, everyone),
  }


def analysis(study: Study, trials: Sequence[Scored]) -> dict[str, Any]:
  """Returns the results of some trials.

  Returns:
    {'persons': how many, 'trials': how many, 'conditions': a row each,
    'scenes': a row for every scene with each condition, 'strengths': a row per
    method, or None}.
  """
  table = _Table(study, trials)
  compared = trial_lists.conditions(study)
  rating = study['task'] == 'rating'
  row = _opinion if rating else _rate
  zs = _z_scores(trials) if rating else {}
  rows = []
  for number, methods in enumerate(compared):
    own = [t for t in trials if t.condition == number]
    found = row(own, table.interval(number))
    if rating:
      scores = [zs[t] for t in own if t in zs]
      found['z_score'] = float(np.mean(scores)) if scores else None
    rows.append({'methods': list(methods), **found})
  return {
    'persons': len({t.person for t in trials}),
    'trials': len(trials),
    'conditions': rows,
    'scenes': _scenes(study, trials, compared),
    'strengths': _strengths(study, table),
  }


class _Table:
  """Sums and numbers of trials, by condition, person and scene."""

  def __init__(self, study, trials):
    names = sorted({t.person for t in trials})
    place = {name: i for i, name in enumerate(names)}
    shape = (
      len(trial_lists.conditions(study)),
      len(names),
      len(study['items']),
    )
    self.total, self.count = np.zeros(shape), np.zeros(shape)  # [C, P, I]
    for t in trials:
      where = t.condition, place[t.person], t.item
      self.total[where] += t.score
      self.count[where] += 1
    self.resamples = cluster_bootstrap.draw(*shape[1:])

  def interval(self, condition):
    return cluster_bootstrap.interval(
      self.total[condition], self.count[condition], self.resamples
    )


def _rate(trials, interval):
  chosen = sum(t.score for t in trials)
  count = len(trials)
  return {
    'trials': count,
    'chosen': chosen,
    'rate': chosen / count if count else None,
    'interval': interval,
    'wilson': wilson.interval(chosen, count) if count else None,
  }


def _opinion(trials, interval):
  scores = collections.Counter(t.score for t in trials)
  count = len(trials)
  return {
    'trials': count,
    'mean': sum(t.score for t in trials) / count if count else None,
    'interval': interval,
    'histogram': [scores[n + 1] for n in range(len(RATINGS))],
  }


def _z_scores(trials):
  """Returns {trial: score in standard deviations from its person's mean}."""
  by_person = collections.defaultdict(list)
  for t in trials:
    by_person[t.person].append(t)
  found = {}
  for own in by_person.values():
    scores = [t.score for t in own]
    if np.std(scores) > 0:
      z = (np.array(scores) - np.mean(scores)) / np.std(scores, ddof=1)
      found.update(zip(own, z.tolist(), strict=True))
  return found


def _person(study, judge: Judge, trials) -> dict[str, Any]:
  own = [t for t in trials if t.person == judge.name]
  rows = []
  for number, methods in enumerate(trial_lists.conditions(study)):
    of = [t for t in own if t.condition == number]
    row = _opinion(of, None) if study['task'] == 'rating' else _rate(of, None)
    rows.append({'methods': list(methods), **row})
  return {
    **judge._asdict(),
    'reasons': list(judge.reasons),
    'conditions': rows,
  }


def _scenes(study, trials, compared):
  """Returns a row for each scene and condition that was answered."""
  found = collections.defaultdict(list)
  for t in trials:
    found[t.item, t.condition].append(t.score)
  return [
    {
      'scene': study['items'][item]['name'],
      'item': item,
      'methods': list(compared[condition]),
      'trials': len(scores),
      'mean': sum(scores) / len(scores),
    }
    for (item, condition), scores in sorted(found.items())
  ]


def _strengths(study, table):
  """Returns Bradley and Terry's strengths of methods that were paired."""
  methods = study['methods']
  pairs = trial_lists.conditions(study)
  if study['task'] != 'preference' or not table.count.any():
    return None
  wins = _wins(methods, pairs, table.total.sum((1, 2)), table.count.sum((1, 2)))
  smooth = not bradley_terry.connected(wins)
  fitted = bradley_terry.smoothed(wins) if smooth else wins
  if not bradley_terry.connected(fitted):
    return None  # Some pairs have no trial that counts.
  best = bradley_terry.strengths(fitted)
  fits = _refitted(methods, pairs, table)
  return [
    {
      'method': method,
      'strength': float(best[i]),
      'interval': bootstrap.ends(fits[:, i], 0.95) if len(fits) > 1 else None,
      'smoothed': smooth,
    }
    for i, method in enumerate(methods)
  ]


def _refitted(methods, pairs, table):
  """Returns [R, M], the strengths of resamples of persons and scenes.

  They are smoothed always: in some of them, one method is chosen each time.
  """
  persons, pictures = (counts[:FITS] for counts in table.resamples)
  drawn = cluster_bootstrap.Resamples(persons, pictures)
  if max(table.count.shape[1:]) < 2:
    return np.zeros((0, len(methods)))
  chosen, counts = (
    np.array([cluster_bootstrap.sums(one, drawn) for one in values])
    for values in (table.total, table.count)
  )
  wins = bradley_terry.smoothed(_wins(methods, pairs, chosen, counts))
  usable = np.array([bradley_terry.connected(one) for one in wins])
  return bradley_terry.strengths(wins[usable], tolerance=1e-6)


def _wins(methods, pairs, seconds, counts):
  """Returns [..., M, M], how often a method was chosen over another.

  Args:
    methods: M names.
    pairs: [C], (first, second) of each condition.
    seconds: [C, ...], how often the second was chosen.
    counts: [C, ...], the trials.
  """
  wins = np.zeros((*np.shape(counts)[1:], len(methods), len(methods)))
  for (first, second), chosen, count in zip(
    pairs, seconds, counts, strict=True
  ):
    i, j = methods.index(first), methods.index(second)
    wins[..., j, i] += chosen
    wins[..., i, j] += count - chosen
  return wins
