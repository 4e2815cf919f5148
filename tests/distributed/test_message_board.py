"""Messages between processes, through a store that all of them see."""

import pytest
from support.key_value_store import Store

from cdm.distributed import message_board


def test_what_one_posts_all_get_and_boards_do_not_mix():
  store = Store()
  first, second = (message_board.Board(n, store) for n in ('save/1', 'save/11'))
  first.post('end', ['full', 1.5, None])
  second.post('end', {})
  assert message_board.Board('save/1', store).wait_for('end', 1) == [
    *('full', 1.5, None)
  ]
  first.clear()
  assert list(store.values) == ['cdm/save/11/end']


def test_a_message_that_does_not_come_is_waited_for_in_vain():
  with pytest.raises(TimeoutError, match='no answer .* within 3 s'):
    message_board.Board('x', Store()).wait_for('end', 3)


def test_another_error_of_the_store_is_raised_as_it_is():
  class Broken(Store):
    def blocking_key_value_get(self, key, milliseconds):
      raise RuntimeError('UNAVAILABLE: connection closed')

  with pytest.raises(RuntimeError, match='connection closed'):
    message_board.Board('x', Broken()).wait_for('end', 3)


class Counted(Store):
  """Counts questions; the values of `later` come when one of them is asked."""

  def __init__(self, later=()):
    super().__init__()
    self.asked, self.later = [], dict(later)

  def blocking_key_value_get(self, key, milliseconds):
    self.asked.append(key)
    if key in self.later:
      self.values[key] = self.later.pop(key)
    return super().blocking_key_value_get(key, milliseconds)

  def key_value_dir_get(self, prefix):
    self.asked.append(prefix)
    return super().key_value_dir_get(prefix)


def keys(count):
  return [str(n) for n in range(1, count)]


def test_what_all_have_posted_takes_two_questions():
  store = Counted()
  board = message_board.Board('x', store)
  for key in keys(512):
    board.post(key, [int(key)])
  board.post('end', 'other')
  found = board.wait_for_all(keys(512), 60)
  assert {key: found[key] for key in keys(512)} == {
    key: [int(key)] for key in keys(512)
  }
  assert len(store.asked) == 2


def test_what_comes_one_by_one_is_not_fetched_again_each_time():
  store = Counted({f'cdm/x/{key}': key for key in keys(512)})
  found = message_board.Board('x', store).wait_for_all(keys(512), 60)
  assert found == {key: int(key) for key in keys(512)}
  assert store.asked.count('cdm/x/') <= 10


def test_who_does_not_answer_in_time_is_left_out():
  store = Counted()
  board = message_board.Board('x', store)
  for key in ('2', '3'):
    board.post(key, key)
  assert board.wait_for_all(['1', '2', '3', '4'], 5) == {'2': '2', '3': '3'}
