"""The numbers of the papers, by the task of a comparison."""

import pytest
from ml_collections import ConfigDict

from cdm.evaluation.comparison import opened_methods, paper_numbers


def task(lowres_size, image_size):
  return opened_methods.Task(ConfigDict(), image_size, lowres_size, 'bicubic')


def test_the_task_of_a_paper_finds_its_table():
  found = paper_numbers.find(task(16, 128), None)
  assert found.metrics == ('psnr', 'ssim', 'consistency')
  assert found.of('sr3', 'consistency') == '2.68'
  assert found.of('regression', 'psnr') == '23.96'
  assert found.of('bicubic', 'psnr') is None
  natural = paper_numbers.find(task(64, 256), None)
  assert natural.of('SR3', 'psnr') == '26.4' and natural.metrics[0] == 'psnr'


def test_an_unverified_number_says_so():
  found = paper_numbers.find(task(8, 32), None)
  assert found.of('nearest_neighbour', 'ssim') == '0.73 (unverified)'


def test_any_table_can_be_asked_for_and_none():
  assert paper_numbers.find(task(16, 64), None) is None
  assert paper_numbers.find(task(16, 128), 'none') is None
  found = paper_numbers.find(task(16, 64), 'sr3_faces')
  assert found.of('pulse', 'psnr') == '16.88'
  with pytest.raises(ValueError, match='--paper=x: known are .*sr3_faces'):
    paper_numbers.find(task(16, 64), 'x')
  with pytest.raises(ValueError, match='--paper=cdm_imagenet64: known are'):
    paper_numbers.find(task(16, 64), 'cdm_imagenet64')
