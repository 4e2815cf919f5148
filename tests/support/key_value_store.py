"""A key-value store such as JAX's coordination service has."""


class Store:
  """What the clients of a run see of the service's keys and values.

  Attributes:
    values: {key: value}.
  """

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value):
    """As JAX's: a key is set once."""
    assert key not in self.values
    self.values[key] = value

  def blocking_key_value_get(self, key, milliseconds):
    """As JAX's; what is not there never comes."""
    del milliseconds
    if key not in self.values:
      raise RuntimeError(f'DEADLINE_EXCEEDED: {key} timed out')
    return self.values[key]

  def key_value_dir_get(self, prefix):
    """As JAX's: everything below a folder, as (key, value)."""
    return [(k, v) for k, v in self.values.items() if k.startswith(prefix)]

  def key_value_delete(self, prefix):
    """As JAX's: removes everything below a folder."""
    self.values = {
      k: v for k, v in self.values.items() if not k.startswith(prefix)
    }
