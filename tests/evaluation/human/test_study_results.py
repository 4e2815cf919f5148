"""Scripted persons: what they were told to answer is what the report says."""

import io
import json
import math
import random
import re

import pytest
from PIL import Image
from support import served, studies

from cdm.evaluation.human import (
  answer_file,
  published_judgements,
  report,
  results_page,
  scored_trials,
  study_results,
)


def reasons(made, rows):
  scored = scored_trials.score(made, rows)
  return {
    name: judge.reasons
    for name, judge in scored_trials.judges(made, scored).items()
  }


def test_persons_of_a_known_rate_get_it_back_in_95_of_100_studies(monkeypatch):
  made = studies.study(scenes=30, trials=15, catch=2)
  draw = study_results.cluster_bootstrap.draw
  monkeypatch.setattr(
    study_results.cluster_bootstrap,
    'draw',
    lambda *shape: draw(*shape, resamples=300),
  )
  held = 0
  for run in range(200):
    rows = [
      row
      for number in range(4)
      for row in studies.session(
        made, number, studies.fooled(0.4, f'{run} {number}')
      )
    ]
    scored = scored_trials.score(made, rows)
    (one,) = study_results.analysis(
      made, [t for t in scored if t.part == 'judged']
    )['conditions']
    assert one['trials'] == 60
    held += one['interval'][0] <= 0.4 <= one['interval'][1]
  assert held >= 190


def test_whoever_does_not_look_is_excluded_and_the_others_are_not():
  made = studies.study(trials=20)
  honest = studies.session(made, 0, studies.fooled(0.4, 0))
  left = studies.session(made, 1, lambda trial: trial.shown[0])
  hasty = studies.session(made, 2, studies.fooled(0.5, 1), rt=100.0)
  blind = studies.session(
    made, 3, lambda trial: random.Random(str(trial)).choice(trial.shown)
  )
  gone = studies.session(made, 4, studies.fooled(0.4, 2))[:9]
  found = reasons(made, [*honest, *left, *hasty, *blind, *gone])
  assert found['person0'] == ()
  assert 'the same answer in 20 of 20 trials' in found['person1']
  assert found['person2'] == ('median answer after 100 ms',)
  assert 'catch trials right' in found['person3'][0]
  assert found['person4'][0] == 'did not finish'
  result = study_results.results(made, [*honest, *left])
  assert result['kept']['persons'] == 1 and result['kept']['trials'] == 20
  assert result['everyone']['persons'] == 2
  # The side is half to half, so whoever always clicks left is fooled in half.
  both = result['everyone']['conditions'][0]['chosen']
  assert both - result['kept']['conditions'][0]['chosen'] == 10
  json.dumps(result, allow_nan=False)


def test_a_trial_that_was_not_seen_as_it_should_be_does_not_count():
  made = studies.study()
  rows = studies.session(made, 0, studies.fooled(0.0, 0))
  judged = [
    i
    for i, t in enumerate(scored_trials.trial_lists.trial_list(made, 0))
    if t.part == 'judged'
  ]
  rows[judged[0]]['shown_ms'] = 2690.0
  rows[judged[1]]['shown_ms'] = 3310.0
  rows[judged[2]]['hidden'] = True
  rows[judged[3]]['shown_ms'] = 3290.0
  found = study_results.results(made, rows)
  assert found['kept']['trials'] == made['trials'] - 3
  assert found['persons'][0]['left_out'] == 3


def test_preferences_give_back_their_strengths():
  """P(a over b) = 1 / (1 + exp(-1)), and as much for b over c."""
  made = studies.study('preference', 30, 15, ('a', 'b', 'c'))
  truth = {'a': 1.0, 'b': 0.0, 'c': -1.0}
  draw = random.Random(0)

  def choose(trial):
    if trial.part != 'judged':
      return 'better'
    first, second = trial.shown
    over = 1 / (1 + math.exp(truth[second] - truth[first]))
    return first if draw.random() < over else second

  rows = [r for n in range(24) for r in studies.session(made, n, choose)]
  found = study_results.results(made, rows)
  for one in found['kept']['strengths']:
    low, high = one['interval']
    assert low <= truth[one['method']] <= high and high - low < 1.5
    assert not one['smoothed']
  # 'second over first' of the pair (a, b) is the rate at which b is chosen.
  rate = found['kept']['conditions'][0]['rate']
  assert rate == pytest.approx(1 / (1 + math.e), abs=0.12)


def test_a_method_that_always_wins_is_told_so():
  made = studies.study('preference', 12, 12, ('a', 'b'))

  def choose(trial):
    return 'better' if trial.part != 'judged' else 'a'

  found = study_results.results(made, studies.session(made, 0, choose))
  strengths = found['everyone']['strengths']
  assert strengths[0]['smoothed']
  # 12 and a half to half a choice.
  gap = strengths[0]['strength'] - strengths[1]['strength']
  assert gap == pytest.approx(math.log(25), rel=1e-6)


def test_opinions_are_means_with_their_histogram():
  made = studies.study('rating', 20, 20, ('original', 'sr3'))

  def choose(trial):
    if trial.part != 'judged':
      return 1
    return {'original': 4, 'sr3': 2}[trial.shown[0]] + trial.item // 2 % 2

  found = study_results.results(made, studies.session(made, 0, choose))
  original, sr3 = found['kept']['conditions']
  assert (original['mean'], sr3['mean']) == (4.5, 2.5)
  assert original['histogram'] == [0, 0, 0, 5, 5]
  assert original['z_score'] == pytest.approx(-sr3['z_score'])
  assert original['z_score'] > 0.8


def test_what_a_person_sends_besides_an_answer_is_not_kept():
  made = studies.study()
  row = studies.answer(made, 0, 0, 1, name='Ada', address='192.0.2.1')
  assert set(answer_file.checked(row, made)) == set(answer_file.COLUMNS)


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'study': 'other'}, "it is of the study 'other'"),
    ({'trial_index': 99}, 'the list has no trial 99'),
    ({'trial_index': -1}, 'the list has no trial -1'),
    ({'response': 2}, 'its response is 2'),
    ({'stimulus': ['../study.json', 'x']}, 'trial 0 shows other pictures'),
    ({'rt': float('nan')}, 'a number is out of range'),
    ({'rt': '5'}, "is '5', not a number"),
    ({'list': 2**40}, 'there is no list'),
  ],
)
def test_what_is_no_answer_is_refused(changed, message):
  made = studies.study()
  row = studies.answer(made, 0, 0, 1) | changed
  with pytest.raises(ValueError, match='This is no answer to this study') as e:
    answer_file.checked(row, made)
  assert message in str(e.value)


def test_an_unverified_number_of_a_paper_says_so():
  sr3, faces, _ = published_judgements.beside('2afc')
  assert ['SR3', '47.4 (inferred)', '54.1 (unverified)'] in [
    row[:3] for row in sr3[2]
  ]
  assert faces[1] == ['method', '% fooled']
  assert all('(unverified)' in row[1] for row in faces[2])
  ((_, _, rows),) = published_judgements.beside('rating')
  assert ['PULSE', '3.60 (read in another text)'] in rows


def test_the_report_is_one_page_with_its_numbers_and_trials(tmp_path):
  made = served.make(tmp_path, scenes=12)
  folder, out = tmp_path / 'study', tmp_path / 'out' / 'r.html'
  honest = studies.session(
    made, 0, studies.fooled(0.5, 0), shown_ms=100.0, person='honest'
  )
  hasty = studies.session(
    made, 1, studies.fooled(0.5, 1), shown_ms=100.0, rt=99.0, person='<hasty>'
  )
  (tmp_path / 'a.json').write_text(
    json.dumps([*honest, *hasty]), encoding='utf-8'
  )
  given = [str(tmp_path / 'a.json')]
  found = report.write(made, folder, given, out, overwrite=False)
  assert json.loads(
    out.with_suffix('.json').read_text(encoding='utf-8')
  ) == json.loads(json.dumps(found))
  page = out.read_text(encoding='utf-8')
  # It loads nothing, and shows no text of others as its own.
  assert not re.search(r'(src|href)="(?!data:image/png)', page)
  assert '&lt;hasty&gt;' in page and '<hasty>' not in page
  assert 'median answer after 99 ms' in page
  assert '47.4 (inferred)' in page and '(unverified)' in page
  rate = found['kept']['conditions'][0]['rate']
  assert f'<td>{100 * rate:.1f}</td>' in page
  # Seven scenes, in both rows of either end, each once.
  assert page.count('data:image/png') == 14
  first, *rows = (
    out.with_suffix('.csv').read_text(encoding='utf-8').splitlines()
  )
  assert first.startswith('trial_index,trial_type,rt,response,stimulus,')
  assert len(rows) == 24 and rows[0].startswith('0,two-pictures,1500.0,')
  with pytest.raises(ValueError, match='exists and would be overwritten'):
    report.write(made, folder, given, out, overwrite=False)
  with pytest.raises(ValueError, match='Nobody has answered'):
    report.write(made, folder, [], out, overwrite=True)


def test_large_pictures_do_not_make_the_page_huge(tmp_path):
  for width, shown in ((320, 320), (1024, 320)):
    path = tmp_path / f'{width}.png'
    Image.new('RGB', (width, width // 2)).save(path)
    png = results_page.shown_png(path)
    assert Image.open(io.BytesIO(png)).size == (shown, shown // 2)
    assert (png == path.read_bytes()) is (width == shown)
