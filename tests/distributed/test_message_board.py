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
