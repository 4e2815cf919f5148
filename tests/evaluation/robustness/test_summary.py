"""The first section of a study marks the better numbers, whoever's they are."""

import re

import pytest

from cdm.evaluation import result_line
from cdm.evaluation.robustness import aggregate, study, summary
from cdm.evaluation.robustness.conditions import CLEAN

METRICS = ('psnr', 'consistency')


def study_of(ours, bicubic):
  """Returns the results of images with given PSNRs.

  Args:
    ours, bicubic: [(clean PSNR, PSNR under noise), ...], one pair per image.
  """
  rows = {}
  for n, pairs in enumerate(zip(ours, bicubic, strict=True)):
    for i, cell in enumerate((CLEAN, 'noise-5')):
      rows[n, cell] = {
        method: {'psnr': pair[i], 'consistency': 1e-5}
        for method, pair in zip(('ours', 'bicubic'), pairs, strict=True)
      }
  return aggregate.collect(
    rows,
    {},
    records=list(range(len(ours))),
    chosen={'noise': [5.0]},
    metrics=METRICS,
    divisions={},
    draws=0,
    sets={},
  )


def page(report):
  return ''.join(map(str, summary.build(report)))


def marked(report):
  cells = re.findall(r'<td class="best">(.*?)</td>', page(report))
  return [float(re.search(r'-?\d+\.\d+', cell)[0]) for cell in cells]


@pytest.mark.parametrize(
  'ours, bicubic, best',
  [
    ((30.0, 25.0), (28.0, 26.0), [30.0, 2.0]),
    ((27.0, 26.0), (28.0, 25.0), [28.0, 1.0]),
    ((28.0, 25.0), (28.0, 25.0), []),
  ],
)
def test_the_better_number_is_marked_whoever_s_it_is(ours, bicubic, best):
  report = study_of([ours] * 2, [bicubic] * 2)
  assert marked(report) == best
  assert ('better number of a column is marked' in page(report)) == bool(best)
  assert 'identical' not in page(report)


def test_all_columns_are_over_the_same_images_and_their_count_is_printed():
  """Bicubic makes image 2 exactly: its PSNR is infinite, stored as None."""
  ours = [(30.0, 29.0), (20.0, 19.0), (60.0, 59.0)]
  bicubic = [(26.0, 25.0), (18.0, 17.0), (None, 40.0)]
  report = study_of(ours, bicubic)
  clean = report['clean']['psnr']
  assert clean['ours']['mean'] == 25.0 and clean['bicubic']['mean'] == 22.0
  (kind,) = report['degradations']
  for method, expected in (('ours', [25.0, 24.0]), ('bicubic', [22.0, 21.0])):
    means = [point['mean'] for point in kind['curves']['psnr'][method]]
    assert means == expected
  assert report['counts'] == {'psnr': 2, 'consistency': 3}
  told = 'over 2 of 3 images, 1 identical'
  assert told in study.text(report) and told in page(report)


def test_nothing_is_said_of_losses_where_there_are_none():
  gains = study_of([(20.0, 21.0)] * 2, [(20.0, 19.0)] * 2)
  assert 'Loses most' not in page(gains)
  losses = study_of([(20.0, 15.0)] * 2, [(20.0, 19.0)] * 2)
  assert 'PSNR falls by 5.00' in page(losses)
  assert 'of filters' not in page(losses)


def test_images_that_are_all_identical_have_no_mean_and_no_error():
  report = study_of([(None, None)] * 2, [(20.0, 19.0)] * 2)
  assert report['clean']['psnr']['bicubic']['mean'] is None
  assert 'over 0 of 2 images, 2 identical' in page(report)


@pytest.mark.parametrize(
  'entry, told',
  [
    ({'name': 'sr', 'checkpoint': 5}, 'sr: step 5, EMA'),
    ({'name': 'nearest'}, 'nearest'),
    (
      {'name': 'sr', 'checkpoint': 5, 'sampler': {'kind': 'ddim'}},
      'sr: step 5, EMA, ddim, full grid',
    ),
    (
      {'name': 'sr', 'sampler': {'kind': 'pulse', 'search': {'steps': 9}}},
      'sr: pulse, 9 steps',
    ),
    ({'name': 'base', 'sampler': {'kind': 'pulse'}}, 'base: pulse'),
  ],
)
def test_a_stage_without_a_sampler_is_described(entry, told):
  assert result_line.describe_sampling({'stages': [entry]}) == [told]
