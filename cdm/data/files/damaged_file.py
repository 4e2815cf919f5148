"""Defines the error of a file whose contents cannot be what they should be."""

import errno
import os


class DamagedFile(ValueError):
  """A file is cut off, changed, or of another kind than it says.

  Its message names the file, the place in it and what to do. A command that
  ends with it has the exit code of a data error: `distributed.exit_codes`,
  which this package does not know, recognizes the attribute.
  """

  is_data_error = True


def too_many_open(error: BaseException | None) -> BaseException | None:
  """Returns what says that too many files are open, or None.

  Such an error tells nothing about the file that could not be opened. Whoever
  reads a file raises it as it is, and the command line words it
  (`distributed.open_files`).

  Args:
    error: any error. Those that caused it are asked too.

  Returns:
    The first of its causes that says so.
  """
  codes, found, seen = (errno.EMFILE, errno.ENFILE), None, set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    # Libraries raise other types, with the words of the system.
    named = any(os.strerror(code) in str(error) for code in codes)
    if named or getattr(error, 'errno', None) in codes:
      found = error
    error = error.__cause__
  return found


def reworded(error: Exception, text: str) -> ValueError:
  """Returns an error with another message and the same exit code.

  Args:
    error: an error of reading a file, which the caller raises the new one from.
    text: the message.

  Returns:
    A DamagedFile if the error is one of a damaged file, else a ValueError.
  """
  damaged = getattr(error, 'is_data_error', False)
  return DamagedFile(text) if damaged else ValueError(text)
