"""Words a number of bytes for people."""


def shown(count: float) -> str:
  """Returns a number of bytes with three digits, such as '1.33 GB'."""
  for unit, least in (('TB', 1e12), ('GB', 1e9), ('MB', 1e6)):
    if count >= least:
      return f'{count / least:.3g} {unit}'
  return f'{count / 1e3:.3g} kB'
