"""Names a checkpoint and one of its averages in a single value.

  None, 10000, 'best'               the main average, see `reader.resolve`
  '@std=0.05', '10000@decay=0.999'  another one, see `average_names`

What draws images passes this value on to where the parameters are restored.
"""

from cdm.checkpointing import average_names


def joined(at: int | str | None, average: str) -> int | str | None:
  """Returns the name of an average of a checkpoint.

  Args:
    at: the checkpoint. If it names an average already, the new one replaces it.
    average: name of the average.
  """
  at = split(at)[0]
  if average == average_names.MAIN:
    return at
  return f'{"" if at is None else at}@{average}'


def split(at: int | str | None) -> tuple[int | str | None, str]:
  """Returns (checkpoint, name of the average)."""
  if not isinstance(at, str) or '@' not in at:
    return at, average_names.MAIN
  step, _, average = at.partition('@')
  if step.isdecimal():
    return int(step), average
  return step or None, average
