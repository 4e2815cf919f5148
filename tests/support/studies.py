"""Small studies, and persons who answer as a script says."""

import random

from cdm.evaluation.human import answer_file, trial_lists
from cdm.evaluation.human.study_file import FORMAT, Item, Study


def item(name, methods, lowres=None):
  """-> a scene whose pictures have names but no files."""
  pictures = {m: f'{abs(hash((name, m))):032x}.png' for m in methods}
  return Item(name=name, width=8, height=8, pictures=pictures, lowres=lowres)


def study(task='2afc', scenes=20, trials=10, methods=('sr3',), catch=5, seed=0):
  """-> a study without files."""
  shown = ['original', *methods] if task == '2afc' else methods
  controls = [item(f'c{i}', ('better', 'worse')) for i in range(catch + 1)]
  return Study(
    format=FORMAT,
    id='s',
    task=task,
    title='T',
    question='Q?',
    information=[],
    seconds=3.0,
    seed=seed,
    methods=list(methods),
    trials=trials,
    items=[item(f'i{i}', shown) for i in range(scenes)],
    practice=controls[:1],
    catch=controls[1:],
  )


def answer(made, number, index, response, person='p', **changed):
  """-> the answer to trial `index` of list `number`."""
  trial = trial_lists.trial_list(made, number)[index]
  shown = trial_lists.stimulus(made, trial)
  row = answer_file.Answer(
    study=made['id'],
    person=person,
    list=number,
    trial_index=index,
    trial_type=answer_file.TRIAL_TYPES[len(shown)],
    stimulus=shown,
    response=response,
    rt=1500.0,
    time_elapsed=1.0,
    shown_ms=3000.0,
    frames=180,
    hidden=False,
    zoom=2,
    device_pixel_ratio=1,
    viewport=[1440, 900],
  )
  return {**row, **changed}


def session(made, number, choose, **changed):
  """-> all answers of a person; choose(trial) -> the method, or the rating."""
  rows = []
  for index, trial in enumerate(trial_lists.trial_list(made, number)):
    given = choose(trial)
    if isinstance(given, str):
      given = trial.shown.index(given)
    own = {'person': f'person{number}', **changed}
    rows.append(answer(made, number, index, given, **own))
  return rows


def fooled(share, seed):
  """-> a person who takes the method's picture with this probability."""
  draw = random.Random(seed)

  def choose(trial):
    if trial.part != 'judged':
      return 'better'
    method = next(name for name in trial.shown if name != 'original')
    return method if draw.random() < share else 'original'

  return choose
