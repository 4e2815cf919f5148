"""Interprets the few pickle operations that a PyTorch state dict consists of.

Python's own unpickler can be told which names to look up, but the objects that
it makes keep their abilities: an operation may call them, replace their
attributes, or fill a table of a size that the file states. This interpreter
makes numbers, texts, tuples, lists, dicts and two kinds of marks, and calls
nothing. All other operations are refused.
"""

import pickletools
from collections.abc import Callable, Collection
from typing import IO, Any, NamedTuple

# State dicts of the largest published networks take a tenth of it.
MOST_BYTES = 4 << 20
_ORDERED_DICT = 'collections.OrderedDict'
_MARK = object()


class Refused(ValueError):
  """The pickle is damaged, or holds what no state dict holds."""


class Name(NamedTuple):
  """A function or class that the pickle refers to, which is never imported.

  Attributes:
    name: dotted name, with its module.
  """

  name: str


class Call(NamedTuple):
  """A call that the pickle asks for, which is not made.

  Attributes:
    name: dotted name of the function.
    arguments: what it would be called with.
  """

  name: str
  arguments: tuple


def load(
  file: IO[bytes],
  names: Collection[str] = (),
  persistent: Callable[[Any], Any] = lambda words: None,
) -> Any:
  """Reads one pickle.

  Args:
    file: the pickle; it is read to the pickle's end.
    names: dotted names that the pickle may refer to; OrderedDict is known.
    persistent: `persistent(words)` returns what a persistent id stands for.

  Returns:
    None, bool, int, float, str, bytes, tuple, list, dict, `Name`, `Call`, and
    what `persistent` returned. An OrderedDict is a dict, and attributes that
    the pickle gives a dict are ignored.

  Raises:
    Refused: the pickle is damaged, or holds what no state dict holds.
  """
  machine = _Machine(names, persistent)
  begin = file.tell()
  bounded: Any = _Bounded(file)
  try:
    for operation, argument, _ in pickletools.genops(bounded):
      if file.tell() - begin > MOST_BYTES:
        raise Refused(f'its pickle has more than {MOST_BYTES:,} bytes')
      if operation.name == 'STOP':
        return machine.pop()
      machine.run(operation.name, argument)
  except Refused:
    raise
  except Exception as error:  # pickletools raises several types
    raise Refused(f'its pickle is damaged: {error}') from error
  raise Refused('its pickle is cut off')


class _Bounded:
  """Reads a file, but never more at once than a pickle may have.

  A file object may allocate what it is asked for before it reads.
  """

  def __init__(self, file: IO[bytes]):
    self._file = file
    self.tell = file.tell

  def read(self, size: int) -> bytes:
    if size > MOST_BYTES:
      raise Refused(f'its pickle has a text of {size:,} bytes')
    return self._file.read(size)

  def readline(self) -> bytes:
    return self._file.readline(MOST_BYTES)


class _Machine:
  """The stack and the memo of one pickle."""

  def __init__(self, names, persistent):
    self._stack, self._memo = [], {}
    self._names, self._persistent = {_ORDERED_DICT, *names}, persistent

  def run(self, operation: str, argument: Any) -> None:
    """Runs one operation, by its name in `pickletools`."""
    if operation in _NOTHING:
      return
    if operation in _CONSTANTS:
      self._stack.append(_CONSTANTS[operation])
    elif operation in _VALUES:
      self._stack.append(argument)
    elif operation in _EMPTY:
      self._stack.append(_EMPTY[operation]())
    elif operation in _TUPLES:
      self._stack.append(self._tuple(_TUPLES[operation]))
    elif operation in _ACTIONS:
      _ACTIONS[operation](self, argument)
    else:
      raise Refused(f'its pickle uses the operation {operation}')

  def pop(self) -> Any:
    """Takes a value from the stack."""
    if not self._stack or self._stack[-1] is _MARK:
      raise Refused('its pickle takes more than it holds')
    return self._stack.pop()

  def _tuple(self, size):
    return tuple(reversed([self.pop() for _ in range(size)]))

  def _since_mark(self):
    """Takes the values above the last mark, and the mark."""
    values = []
    while self._stack and self._stack[-1] is not _MARK:
      values.append(self._stack.pop())
    if not self._stack:
      raise Refused('its pickle has no mark where one is needed')
    self._stack.pop()
    return values[::-1]

  def _top(self, kind):
    value = self.pop()
    self._stack.append(value)
    if type(value) is not kind:
      raise Refused(f'its pickle stores into what is no {kind.__name__}')
    return value

  def mark(self, _):
    self._stack.append(_MARK)

  def name(self, argument):
    self._refer(argument.replace(' ', '.', 1))

  def stack_name(self, _):
    module, name = self._tuple(2)
    if not isinstance(module, str) or not isinstance(name, str):
      raise Refused('its pickle refers to a name that is no text')
    self._refer(f'{module}.{name}')

  def _refer(self, name):
    if name not in self._names:
      raise Refused(f'it refers to {ascii(name[:100])[1:-1]}')
    self._stack.append(Name(name))

  def put(self, argument):
    self._memo[argument] = self.pop()
    self._stack.append(self._memo[argument])

  def memoize(self, _):
    self.put(len(self._memo))

  def get(self, argument):
    if argument not in self._memo:
      raise Refused(f'its pickle has no memo {argument}')
    self._stack.append(self._memo[argument])

  def persistent_id(self, _):
    self._stack.append(self._persistent(self.pop()))

  def call(self, _):
    called, arguments = self._tuple(2)
    if not isinstance(called, Name) or type(arguments) is not tuple:
      raise Refused('its pickle calls what is no name')
    if called.name != _ORDERED_DICT:
      self._stack.append(Call(called.name, arguments))
      return
    made = {}
    for pair in arguments[0] if arguments else ():
      key, value = pair
      made[_checked_key(key)] = value
    self._stack.append(made)

  def build(self, _):
    """Ignores the attributes of a dict; nothing else may be given any."""
    self.pop()
    self._top(dict)

  def append(self, _):
    value = self.pop()
    self._top(list).append(value)

  def extend(self, _):
    values = self._since_mark()
    self._top(list).extend(values)

  def set_item(self, _):
    key, value = self._tuple(2)
    self._top(dict)[_checked_key(key)] = value

  def set_items(self, _):
    values = self._since_mark()
    if len(values) % 2:
      raise Refused('its pickle has a key without a value')
    made = self._top(dict)
    for key, value in zip(values[::2], values[1::2], strict=True):
      made[_checked_key(key)] = value

  def tuple_since_mark(self, _):
    self._stack.append(tuple(self._since_mark()))


def _checked_key(key: Any) -> str | int:
  # The hash of tuples inside each other can take longer than anyone waits.
  if type(key) not in (str, int):
    raise Refused(f'its pickle has a key that is a {type(key).__name__}')
  return key


_NOTHING = {'PROTO', 'FRAME'}
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_VALUES = {
  *('BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT'),
  *('BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
  *('BINSTRING', 'SHORT_BINSTRING'),
  *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8'),
}
_EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list}
_TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
  'MARK': _Machine.mark,
  'GLOBAL': _Machine.name,
  'STACK_GLOBAL': _Machine.stack_name,
  'PUT': _Machine.put,
  'BINPUT': _Machine.put,
  'LONG_BINPUT': _Machine.put,
  'MEMOIZE': _Machine.memoize,
  'GET': _Machine.get,
  'BINGET': _Machine.get,
  'LONG_BINGET': _Machine.get,
  'BINPERSID': _Machine.persistent_id,
  'REDUCE': _Machine.call,
  'BUILD': _Machine.build,
  'APPEND': _Machine.append,
  'APPENDS': _Machine.extend,
  'SETITEM': _Machine.set_item,
  'SETITEMS': _Machine.set_items,
  'TUPLE': _Machine.tuple_since_mark,
}
