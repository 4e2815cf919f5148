"""Defines the error of a file whose contents cannot be what they should be."""


class DamagedFile(ValueError):
  """A file of data is cut off, changed, or of another kind than it says.

  Its message names the file, the place in it and what to do. A command that
  ends with it has the exit code of a data error: `distributed.exit_codes`,
  which this package does not know, recognizes the attribute.
  """

  is_data_error = True


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
