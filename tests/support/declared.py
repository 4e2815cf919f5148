"""Whether the entries of a dict are those that its TypedDict declares."""


def assert_declared(value, kind, *, further=()):
  """Fails if an entry is not declared, or if a required one is absent.

  Args:
    value: the dict.
    kind: the TypedDict.
    further: names of entries that the type cannot declare.
  """
  unknown = value.keys() - kind.__annotations__.keys() - set(further)
  assert not unknown, f'{kind.__name__} does not declare {sorted(unknown)}'
  absent = kind.__required_keys__ - value.keys()
  assert not absent, f'{kind.__name__} requires {sorted(absent)}'
