"""Persons get lists of their own, come back to them, and survive a kill."""

import json
import os

import pytest
from support import studies

from cdm.evaluation.human import answer_file, person_register
from cdm.evaluation.human.person_register import PersonRegister


def test_two_persons_get_two_lists_and_come_back_to_them():
  register = PersonRegister(studies.study())
  secrets = [register.begin()[0] for _ in range(3)]
  assert [register.find(s).list for s in secrets] == [0, 1, 2]
  assert register.find('unknown') is register.find(7) is None


def test_the_list_of_a_person_who_left_is_given_out_again():
  now = [0.0]
  made = studies.study()
  register = PersonRegister(made, clock=lambda: now[0])
  _, done = register.begin()
  register.begin()
  done.answered.update(range(len(studies.session(made, 0, lambda t: 0))))
  now[0] = person_register.RELEASE_SECONDS + 1
  assert register.begin()[1].list == 1  # 0 is finished
  assert register.begin()[1].list == 2


def test_a_register_from_the_disk_knows_everybody():
  made = studies.study()
  register = PersonRegister(made)
  secret, person = register.begin()
  with pytest.raises(ValueError, match='shows other pictures'):
    register.answer(person, studies.answer(made, 5, 3, 1, 'forged'))
  row = register.answer(person, studies.answer(made, 0, 0, 1, 'forged'))
  assert row['person'] == person.name != secret and row['list'] == 0
  begun = [{'person': person.name, 'list': 0}]
  again = PersonRegister(made, begun, [row])
  assert again.find(secret).answered == {0}
  assert again.answer(again.find(secret), row) is None  # twice


def test_nobody_can_fill_the_memory(monkeypatch):
  monkeypatch.setattr(person_register, 'MOST_PERSONS', 2)
  register = PersonRegister(studies.study())
  register.begin(), register.begin()
  with pytest.raises(person_register.TooManyPersons):
    register.begin()


def test_an_answer_is_on_the_disk_before_it_counts_as_kept(
  tmp_path, monkeypatch
):
  made = studies.study()
  rows = studies.session(made, 0, lambda t: 0)
  path = tmp_path / 'answers.jsonl'
  synced = []
  real = os.fsync
  monkeypatch.setattr(os, 'fsync', lambda f: (synced.append(f), real(f)))
  file = answer_file.DurableRows(path)
  synced.clear()
  file.append(rows[0])
  assert len(synced) == 1
  # A kill in the middle of a write.
  with open(path, 'ab') as cut:
    cut.write(b'{"study": "s", "per')
  assert answer_file.read([path], made) == rows[:1]
  file = answer_file.DurableRows(path)
  file.append(rows[1])
  assert answer_file.read([path], made) == rows[:2]
  assert os.stat(path).st_mode & 0o077 == 0  # for the owner alone
  file.close()


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
  made = studies.study()
  rows = studies.session(made, 0, lambda t: 0)
  file = answer_file.DurableRows(tmp_path / 'answers.jsonl')
  file.append(rows[0])
  real = os.write
  monkeypatch.setattr(os, 'write', lambda f, data: real(f, data[:10]))
  with pytest.raises(OSError, match='the disk is full'):
    file.append(rows[1])
  monkeypatch.setattr(os, 'write', real)
  file.append(rows[2])
  found = answer_file.read([tmp_path / 'answers.jsonl'], made)
  assert [row['trial_index'] for row in found] == [0, 2]


def test_a_file_of_another_study_is_named(tmp_path):
  made = studies.study()
  rows = studies.session(made, 0, lambda t: 0, study='other')
  path = tmp_path / 'answers_x.json'
  path.write_text(json.dumps(rows), encoding='utf-8')
  with pytest.raises(ValueError, match="answers_x.json, answer 1: .*'other'"):
    answer_file.read([tmp_path], made)
  path.write_text('{}', encoding='utf-8')
  with pytest.raises(ValueError, match='it holds no list'):
    answer_file.read([path], made)
