"""Begins a batch before the batch before it is waited for."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar('T')


def one_ahead(begun: Iterable[T]) -> Iterator[T]:
  """Yields what an iterable gives, each item after the next has begun.

  JAX returns the arrays of a program before the devices have computed them.
  Whoever waits for a batch before he begins the next leaves the devices without
  work while the host prepares it. Here the next program lies in their queue
  already. Only one does, so memory holds the arguments and results of two
  batches; the devices work on one at a time.

  Args:
    begun: iterable whose next item is a program that has begun.
  """
  waiting: list[T] = []
  for item in begun:
    waiting.append(item)
    if len(waiting) == 2:
      yield waiting.pop(0)
  yield from waiting
