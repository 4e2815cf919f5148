"""Defines the error of a file that holds no weights that could be read."""


class DamagedWeights(ValueError):
  """A file of weights is cut off, changed, or of another kind than it says.

  Its message names the file and what to do. A command that ends with it has the
  exit code of a data error: `distributed.exit_codes`, which this package does
  not know, recognizes the attribute.
  """

  is_data_error = True
