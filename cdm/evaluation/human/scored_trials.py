"""Scores answers against the lists, and says whose answers do not count.

What was right follows from the study and the number of the list, never from the
answer. A trial does not count if its pictures were shown for another time, or
the page was hidden; a person does not count for the reasons in `Rules`.
"""

import collections
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cdm.evaluation.human import trial_lists
from cdm.evaluation.human.answer_file import Answer
from cdm.evaluation.human.study_file import BETTER, Study


class Rules(NamedTuple):
  """When a trial or a person does not count; set before anybody answers.

  Attributes:
    time_share: how far the time of the pictures may be from what was asked.
    catch_share: a person needs this share of the catch trials right.
    least_rt: least median time of a person's answers, ms.
    one_answer: largest share of a person's trials with the same answer.
    least_trials: trials from which `one_answer` is looked at; of fewer, chance
      gives one side to many.
  """

  time_share: float = 0.1
  catch_share: float = 0.8
  least_rt: float = 300.0
  one_answer: float = 0.9
  least_trials: int = 10


RULES = Rules()


class Scored(NamedTuple):
  """A judged or catch trial with its answer.

  Attributes:
    person: name of the person.
    part: 'judged' or 'catch'.
    item: index of the scene in its part of the study.
    condition: index in `trial_lists.conditions`.
    score: of two pictures, 1 if the second of the condition was chosen, in
      2afc the method's, else 0; of a rating, 1 to 5; in a catch trial, whether
      it was answered right.
    response: the answer, see `Answer`.
    rt: ms.
    counts: whether the pictures were seen as they should be.
  """

  person: str
  part: str
  item: int
  condition: int
  score: int
  response: int
  rt: float
  counts: bool


class Judge(NamedTuple):
  """What is known of a person.

  Attributes:
    name: random name.
    answered: judged and catch trials with an answer.
    left_out: of those, how many do not count.
    catch_right: catch trials that were answered right.
    catch_total: catch trials that count.
    median_rt: of the judged trials that count, ms; None without any.
    reasons: why the person does not count; empty if it does.
  """

  name: str
  answered: int
  left_out: int
  catch_right: int
  catch_total: int
  median_rt: float | None
  reasons: tuple[str, ...]


def score(
  study: Study, answers: Iterable[Answer], rules: Rules = RULES
) -> list[Scored]:
  """Scores the answers to all trials but those of practice."""
  lists: dict[int, list[trial_lists.Trial]] = {}
  scored = []
  for row in answers:
    number = row['list']
    if number not in lists:
      lists[number] = trial_lists.trial_list(study, number)
    trial = lists[number][row['trial_index']]
    if trial.part == 'practice':
      continue
    off = abs(row['shown_ms'] / 1000 - study['seconds'])
    scored.append(
      Scored(
        person=row['person'],
        part=trial.part,
        item=trial.item,
        condition=trial.condition,
        score=_score(study, trial, row['response']),
        response=row['response'],
        rt=row['rt'],
        counts=off <= rules.time_share * study['seconds'] and not row['hidden'],
      )
    )
  return scored


def _score(study, trial, response):
  if len(trial.shown) == 1:
    # The blurred picture is 'bad' or 'poor' to anybody who looks.
    return int(response <= 2) if trial.part == 'catch' else response
  chosen = trial.shown[response]
  if trial.part == 'catch':
    return int(chosen == BETTER)
  return int(chosen == trial_lists.conditions(study)[trial.condition][1])


def judges(
  study: Study, scored: Iterable[Scored], rules: Rules = RULES
) -> dict[str, Judge]:
  """Returns {name: what is known of the person}."""
  by_person = collections.defaultdict(list)
  for trial in scored:
    by_person[trial.person].append(trial)
  return {name: _judge(study, by_person[name], rules) for name in by_person}


def _judge(study, trials, rules) -> Judge:
  counted = [t for t in trials if t.counts]
  judged = [t for t in counted if t.part == 'judged']
  catch = [t for t in counted if t.part == 'catch']
  right = sum(t.score for t in catch)
  median = statistics.median(t.rt for t in judged) if judged else None
  reasons = []
  if len(trials) < study['trials'] + len(study['catch']):
    reasons.append('did not finish')
  if study['catch'] and right < rules.catch_share * max(len(catch), 1):
    reasons.append(f'{right} of {len(catch)} catch trials right')
  if median is not None and median < rules.least_rt:
    reasons.append(f'median answer after {median:.0f} ms')
  answers = collections.Counter(t.response for t in judged)
  most = max(answers.values(), default=0)
  enough = len(judged) >= rules.least_trials
  if enough and most > rules.one_answer * len(judged):
    reasons.append(f'the same answer in {most} of {len(judged)} trials')
  if not judged:
    reasons.append('no trial that counts')
  return Judge(
    name=trials[0].person,
    answered=len(trials),
    left_out=len(trials) - len(counted),
    catch_right=right,
    catch_total=len(catch),
    median_rt=median,
    reasons=tuple(reasons),
  )


def that_count(
  scored: Iterable[Scored], judged_by: Mapping[str, Judge], *, excluded: bool
) -> list[Scored]:
  """Returns the judged trials that count.

  Args:
    scored: all trials.
    judged_by: see `judges`.
    excluded: whether those of excluded persons are among them.
  """
  return [
    t
    for t in scored
    if t.part == 'judged'
    and t.counts
    and (excluded or not judged_by[t.person].reasons)
  ]
