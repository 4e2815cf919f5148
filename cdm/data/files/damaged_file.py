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


def too_many_open(error: BaseException | None) -> bool:
  """Returns whether an error comes of the limit of open files.

  Such an error says nothing about the file, and is raised as it is: the command
  line words it (`distributed.open_files`, which this package does not know).
  """
  codes, seen = (errno.EMFILE, errno.ENFILE), set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    if getattr(error, 'errno', None) in codes:
      return True
    # Libraries raise other types, with the words of the system.
    if any(os.strerror(code) in str(error) for code in codes):
      return True
    error = error.__cause__
  return False


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
