"""The images of the page are chosen by the rule that it states."""

from cdm.evaluation.comparison import shown_images


def numbers(*values, **given):
  shown = shown_images.choose(values, of='sr3', **given)
  return [image.number for image in shown], [image.why for image in shown]


def test_the_first_then_the_best_then_the_worst():
  found, why = numbers(5.0, 1.0, 4.0, 2.0, 9.0, 3.0, first=1, extreme=2)
  assert found == [0, 1, 3, 4, 2]
  assert why[1] == 'image 1: best 1 by the consistency of sr3'
  assert why[4] == 'image 2: worst 2 by the consistency of sr3'


def test_no_image_is_shown_twice():
  found, _ = numbers(1.0, 9.0, 2.0, first=2, extreme=2)
  assert found == [0, 1, 2]
  assert numbers(1.0, 2.0, first=5, extreme=1)[0] == [0, 1]


def test_an_image_without_a_score_is_never_the_best():
  assert numbers(None, 2.0, 1.0, first=0, extreme=1)[0] == [2, 1]
