"""Words an error of a library in one line, for a sentence that quotes it."""

from cdm.data.printable_name import printable


def first_line(error: Exception) -> str:
  """Returns the first line of an error without its stop, or its type."""
  text = str(error).strip() or type(error).__name__
  return printable(text.splitlines()[0].rstrip('.')[:200])
