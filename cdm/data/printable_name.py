"""Writes the name of a file as text that can be printed anywhere.

On Linux a file name is bytes. Python turns bytes that are not UTF-8 into lone
surrogates, which no encoding can write, and a name may hold characters that
move the cursor of a terminal or begin a new line.
"""


def printable(name: object) -> str:
  r"""Returns a name, or a message with names in it, that can be printed.

  A byte that is not UTF-8 becomes \xff, a line feed \n, and so on.

  Args:
    name: a text or a path.
  """
  text = str(name)
  if text.isprintable():
    return text
  return ''.join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character):
  code = ord(character)
  if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
    return f'\\x{code - 0xDC00:02x}'
  return character.encode('unicode_escape').decode('ascii')
