"""Ranks are those of every image once, however often the test was killed."""

import json

import numpy as np
import pytest

from cdm.evaluation import partial_results
from cdm.evaluation.classification import ranks

TRUE = np.random.default_rng(0).integers(0, 20, (23, 2))


def opened(tmp_path, *what):
  return partial_results.image_rows(tmp_path, what, prefix=ranks.PREFIX)


def of_set(tmp_path, *, fail_at=None, what=('a',), seen=None, **given):
  calls = []

  def read(numbers):
    return list(numbers)

  def rank(numbers, given):
    assert given == list(numbers)
    calls.append(numbers)
    if len(calls) == fail_at:
      raise KeyboardInterrupt
    return numbers, TRUE[numbers]

  try:
    return ranks.rank_images(
      len(TRUE),
      read,
      rank,
      kinds=('ours', 'bicubic'),
      rows=opened(tmp_path, *what),
      batch_size=5,
      label='testing',
      **given,
    )
  finally:
    if seen is not None:
      seen.append([n for numbers in calls for n in numbers])


def test_every_image_is_ranked_once_across_kills(tmp_path):
  seen = []
  for fail_at in (3, 2):
    with pytest.raises(KeyboardInterrupt):
      of_set(tmp_path, fail_at=fail_at, seen=seen)
  found = of_set(tmp_path, seen=seen)
  assert seen == [list(range(15)), list(range(10, 20)), list(range(15, 23))]
  np.testing.assert_array_equal(found['ours'], TRUE[:, 0])
  np.testing.assert_array_equal(found['bicubic'], TRUE[:, 1])


def test_a_line_torn_by_a_kill_is_ranked_again(tmp_path):
  of_set(tmp_path)
  (file,) = tmp_path.rglob('process-0.jsonl')
  file.write_bytes(file.read_bytes()[:-3])
  seen = []
  found = of_set(tmp_path, seen=seen)
  assert seen == [[22]]
  np.testing.assert_array_equal(found['ours'], TRUE[:, 0])
  rows = [
    json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()
  ]
  assert sorted(row[0] for row in rows) == list(range(23))


@pytest.mark.parametrize('together', [False, True])
def test_a_process_reads_its_own_part_unless_all_must_work_together(
  tmp_path, monkeypatch, together
):
  """Of two processes the second, which has every other image of a batch."""
  monkeypatch.setattr(
    ranks.collectives, 'local_indices', lambda count: range(1, count, 2)
  )
  others = [[n, *TRUE[n].tolist()] for n in range(23)]
  monkeypatch.setattr(
    ranks.collectives, 'gather_objects', lambda found: [found, others]
  )
  seen = []
  found = of_set(tmp_path, seen=seen, together=together)
  part = [n for n in range(23) if n % 5 in (1, 3)]
  assert seen == [list(range(23)) if together else part]
  np.testing.assert_array_equal(found['ours'], TRUE[:, 0])


def test_another_set_begins_anew_and_what_is_done_is_forgotten(tmp_path):
  of_set(tmp_path)
  seen = []
  of_set(tmp_path, what=('b',), seen=seen)
  assert seen == [list(range(23))]
  opened(tmp_path, 'a').remove()
  opened(tmp_path, 'b').remove()
  assert not list(tmp_path.iterdir())


def test_numbers_are_shares_with_an_interval_where_images_are_few():
  found = np.array([0] * 60 + [3] * 20 + [7] * 20)
  row = ranks.accuracy(found)
  assert (row['top1'], row['top5']) == (0.6, 0.8)
  for name, p in (('top1', 0.6), ('top5', 0.8)):
    low, high = row['intervals'][name]
    spread = 1.96 * np.sqrt(p * (1 - p) / 100)  # of a binomial share
    assert low == pytest.approx(p - spread, abs=0.02)
    assert high == pytest.approx(p + spread, abs=0.02)
  assert ranks.accuracy(np.zeros(5001, int))['intervals'] == {}
