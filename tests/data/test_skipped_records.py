import logging

import pytest

from cdm.data import skipped_records


def unreadable(*names):
  return [('unreadable', name, 'cut off') for name in names]


def test_the_counts_are_those_of_all_batches_and_can_be_continued():
  counter = skipped_records.SkipCounter(100, 0.5)
  counter.add(5, unreadable('a'))
  counter.add(4, [('too_small', 'record 3', 'short side 2')])
  saved = counter.counts()
  assert saved == {'tried': 9, 'unreadable': 1, 'too_small': 1}
  again = skipped_records.SkipCounter(100, 0.5)
  again.restore(saved)
  again.add(1, unreadable('b'))
  assert again.counts() == {'tried': 10, 'unreadable': 2, 'too_small': 1}
  assert saved['unreadable'] == 1  # a copy


@pytest.mark.parametrize(
  ('records', 'fraction', 'tried', 'allowed'),
  [
    (10, 0.0, 10, 0),
    (10, 0.2, 1, 2),  # of the whole first window
    (10, 0.2, 10, 2),
    (10, 0.2, 11, 4),  # a second one has begun
    (10, 0.2, 25, 6),
    (10**9, 0.001, 1, int(0.001 * skipped_records._SKIP_WINDOW)),
  ],
)
def test_no_more_than_the_share_of_the_windows_begun_is_allowed(
  records, fraction, tried, allowed
):
  names = [str(i) for i in range(allowed + 1)]
  counter = skipped_records.SkipCounter(records, fraction)
  counter.add(tried, unreadable(*names[:allowed]))
  with pytest.raises(ValueError) as caught:
    counter.add(0, unreadable(names[-1]))
  assert str(caught.value).startswith(
    f'{allowed + 1} unreadable records among {tried} read so far, more than '
    f'max_skip_fraction={fraction}; the last: {names[-1]}: cut off. Repair'
  )


def test_small_records_are_never_too_many():
  counter = skipped_records.SkipCounter(10, 0.0)
  counter.add(10, [('too_small', 'x', 'short side 2')] * 10)
  assert counter.counts()['too_small'] == 10


def test_an_unreadable_record_is_named_once(caplog):
  counter = skipped_records.SkipCounter(10, 1.0)
  counter.add(3, unreadable('a', 'b', 'a'))
  counter.add(1, unreadable('a'))
  assert caplog.messages == [
    'Skipped a: cut off (1 such records among 3 read so far)',
    'Skipped b: cut off (2 such records among 3 read so far)',
  ]


def test_small_records_are_told_at_every_doubling(caplog):
  counter = skipped_records.SkipCounter(10, 0.0)
  with caplog.at_level(logging.INFO):
    for _ in range(9):
      counter.add(2, [('too_small', 'x', 'short side 2')])
  told = [message.split()[2:5:2] for message in caplog.messages]
  assert told == [['1', '2'], ['2', '4'], ['4', '8'], ['8', '16']]
