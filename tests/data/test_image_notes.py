"""What is left out of images is said once, and then counted."""

import pytest
from absl import logging

from cdm.data import image_notes


@pytest.fixture
def said(monkeypatch):
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda s, *a: lines.append(s % a))
  image_notes._counts.cache_clear()
  image_notes._say_once.cache_clear()
  yield lines
  image_notes._counts.cache_clear()
  image_notes._say_once.cache_clear()


def alpha(name):
  return image_notes.Note('alpha', name, 'its transparent pixels are white')


def test_of_a_set_the_first_image_is_named_and_the_others_counted(said):
  for name in ('a.png', 'b.png', 'c.png'):
    image_notes.count([alpha(name)])
  image_notes.count([image_notes.Note('more', 'd.gif', 'it has frames')])
  assert [line.split(':')[0] for line in said] == ['a.png', 'd.gif']
  image_notes._counts().report()
  assert said[2:] == [
    'In 3 images read, transparency was laid over white; the first: a.png.'
  ]


def test_a_file_that_is_shown_upright_as_anywhere_is_not_spoken_of(said):
  notes = [image_notes.Note(kind, 'a.jpg', kind) for kind in image_notes.KINDS]
  image_notes.say(notes)
  assert [line.split()[1] for line in said] == [
    f'{kind}.' for kind in image_notes.KINDS if kind != 'rotated'
  ]


def test_of_single_files_each_is_named_once(said):
  for name in ('a.png', 'b.png', 'a.png'):
    image_notes.say([alpha(name)])
  assert said == [
    'a.png: its transparent pixels are white.',
    'b.png: its transparent pixels are white.',
  ]
