"""Parses TensorFlow's message Example without TensorFlow.

A message is a list of fields: a number, and a value or the bytes of a message
inside. An Example is a map from names to features, and a feature is a list of
byte strings, of floats or of integers (tensorflow/core/example/*.proto). Only
the parts that are asked for are read, so that the labels of a data set are
found without its images.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

# Returns the bytes at a position, at most so many; fewer only at the end.
Take = Callable[[int, int], bytes]
BYTES, FLOATS, INTS = 1, 2, 3  # which list a feature has
_MOST_HEAD_BYTES = 20  # two numbers of up to ten bytes
_MOST_NAME_BYTES = 1000
_MOST_INTS_BYTES = 1 << 20
_VARINT, _FIXED64, _MESSAGE, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
  """The bytes are no Example."""


class Span(NamedTuple):
  """Where a part of the data begins and ends."""

  begin: int
  end: int


class Feature(NamedTuple):
  """A feature that was found and not yet read.

  Attributes:
    kind: BYTES, FLOATS or INTS.
    span: where its list is.
  """

  kind: int
  span: Span


class _Field(NamedTuple):
  number: int
  wire: int
  span: Span  # of a message
  value: int  # of a number


def taker(data: bytes) -> Take:
  """Returns what takes parts of data that are in memory."""
  return lambda begin, length: data[begin : begin + length]


def features(
  take: Take, span: Span, wanted: Collection[str] | None = None
) -> dict[str, Feature]:
  """Returns the features of an Example by name.

  Args:
    take: reads parts of the data.
    span: where the Example is.
    wanted: names of features; the others are left out. None takes all.

  Raises:
    Malformed: it is no Example.
  """
  found = {}
  for outer in _messages(take, span, 1):
    for entry in _messages(take, outer, 1):
      name, value = None, None
      for field in _fields(take, entry):
        if field.wire != _MESSAGE:
          raise Malformed('a feature has neither name nor value')
        if field.number == 1:
          name = _text(take, field.span)
        elif field.number == 2:
          value = field.span
      if name is None:
        raise Malformed('a feature has no name')
      if value is None or (wanted is not None and name not in wanted):
        continue
      for one in _fields(take, value):
        if one.wire == _MESSAGE and one.number in (BYTES, FLOATS, INTS):
          found[name] = Feature(one.number, one.span)
  return found


def byte_spans(take: Take, feature: Feature) -> list[Span]:
  """Returns where the byte strings of a feature are; [] if it has others."""
  if feature.kind != BYTES:
    return []
  return list(_messages(take, feature.span, 1))


def ints(take: Take, feature: Feature) -> list[int]:
  """Returns the integers of a feature; [] if it has others.

  Raises:
    Malformed: the list is damaged.
  """
  values: list[int] = []
  if feature.kind != INTS:
    return values
  for field in _fields(take, feature.span):
    if field.number != 1:
      continue
    if field.wire == _VARINT:
      values.append(_signed(field.value))
      continue
    begin, end = field.span
    if field.wire != _MESSAGE or end - begin > _MOST_INTS_BYTES:
      raise Malformed('a list of integers has another form')
    data, at = take(begin, end - begin), 0
    while at < len(data):
      value, at = _varint(data, at)
      values.append(_signed(value))
  return values


def text(take: Take, feature: Feature | None) -> str | None:
  """Returns the only byte string of a feature as a text; None without."""
  if feature is None:
    return None
  spans = byte_spans(take, feature)
  return _text(take, spans[0]) if len(spans) == 1 else None


def integer(take: Take, feature: Feature | None) -> int | None:
  """Returns the only integer of a feature; None without."""
  values = ints(take, feature) if feature is not None else []
  return values[0] if len(values) == 1 else None


def _text(take, span):
  if span.end - span.begin > _MOST_NAME_BYTES:
    raise Malformed(f'a name has {span.end - span.begin:,} bytes')
  data = take(span.begin, span.end - span.begin)
  return data.decode(errors='surrogateescape')


def _messages(take, span, number) -> Iterator[Span]:
  """Yields where the messages of one number are; skips all others."""
  for field in _fields(take, span):
    if field.number == number and field.wire == _MESSAGE:
      yield field.span


def _fields(take, span) -> Iterator[_Field]:
  at, end = span
  while at < end:
    head = take(at, min(_MOST_HEAD_BYTES, end - at))
    key, after = _varint(head, 0)
    wire, value = key & 7, 0
    if wire == _MESSAGE:
      length, after = _varint(head, after)
    elif wire == _VARINT:
      value, after = _varint(head, after)
      length = 0
    elif wire in (_FIXED64, _FIXED32):
      length = 8 if wire == _FIXED64 else 4
    else:
      raise Malformed(f'a field has the type {wire}')
    begin = at + after
    at = begin + length
    if at > end:
      raise Malformed('a field ends behind what it is a part of')
    yield _Field(key >> 3, wire, Span(begin, at), value)


def _varint(data, at):
  """Returns (the number of seven bits a byte at a position, the next one)."""
  value = shift = 0
  while at < len(data) and shift < 70:
    byte = data[at]
    at += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      return value, at
    shift += 7
  raise Malformed('a number has no end')


def _signed(value):
  value &= (1 << 64) - 1
  return value - (1 << 64) if value >= 1 << 63 else value
