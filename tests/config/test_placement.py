"""The `mesh` section: who chooses the size of `fsdp`, and for what."""

import jax
import pytest

from cdm.config import placement


def shape(build, num_slices, **section):
  mesh = build(section, jax.devices(), num_slices=num_slices)
  return dict(mesh.shape)


def test_a_section_without_fsdp_or_with_a_number_keeps_its_layout():
  whole = dict(data=8, fsdp=1, tensor=1)
  assert shape(placement.mesh, 2) == whole
  assert shape(placement.mesh, 2, data=-1, fsdp=1) == whole
  assert shape(placement.mesh, 2, fsdp=2) == dict(data=4, fsdp=2, tensor=1)


def test_only_training_splits_over_a_host_by_itself():
  """Drawing images updates no state."""
  split, whole = (dict(data=8 // n, fsdp=n, tensor=1) for n in (4, 1))
  assert shape(placement.mesh, 2, fsdp=0) == split
  assert shape(placement.mesh, 1, fsdp=0) == whole, 'one host'
  assert shape(placement.drawing_mesh, 2, fsdp=0) == whole
  assert shape(placement.drawing_mesh, 2, fsdp=4) == split


def test_axes_that_no_slice_holds_name_the_section():
  with pytest.raises(ValueError, match=r'^config\.mesh.* does not fit into'):
    placement.mesh({'fsdp': 8}, jax.devices(), num_slices=2)
