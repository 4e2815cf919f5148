"""What a person's page is told: texts and pictures, but no right answers."""

from typing import Any

from cdm.evaluation.human import trial_lists
from cdm.evaluation.human.answer_file import TRIAL_TYPES
from cdm.evaluation.human.study_file import BETTER, RATINGS, Study


def texts(study: Study) -> dict[str, Any]:
  """Returns what is the same for all persons."""
  return {
    'study': study['id'],
    'task': study['task'],
    'title': study['title'],
    'question': study['question'],
    'information': study['information'],
    'seconds': study['seconds'],
    'ratings': list(RATINGS) if study['task'] == 'rating' else [],
  }


def trials(study: Study, number: int) -> list[dict[str, Any]]:
  """Returns the trials of a list.

  Only practice trials of two pictures say which one is right, in 'right'; those
  with a known answer later on look like all others.
  """
  found = []
  for trial in trial_lists.trial_list(study, number):
    item = trial_lists.item_of(study, trial)
    shown = trial_lists.stimulus(study, trial)
    one = {
      'trial_type': TRIAL_TYPES[len(shown)],
      'stimulus': shown,
      'lowres': item['lowres'],
      'width': item['width'],
      'height': item['height'],
      'practice': trial.part == 'practice',
    }
    if trial.part == 'practice' and len(shown) == 2:
      one['right'] = trial.shown.index(BETTER)
    found.append(one)
  return found
