"""The table of parameters: every array with its shape and its layout."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from cdm.distributed import device_mesh
from cdm.reporting import parameter_table


def test_every_array_stands_in_the_table_with_its_layout(tmp_path):
  mesh = device_mesh.make_mesh(fsdp=len(jax.devices()))

  def array(shape, *spec):
    place = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)

  params = {
    f'block_{n:03}': {
      'kernel': array((3, 3, 8, 16), None, None, None, 'fsdp'),
      'bias': array((16,)),
    }
    for n in range(100)  # More than a terminal has lines.
  }
  parameter_table.write(tmp_path, params)
  lines = (tmp_path / 'parameters.txt').read_text(encoding='utf-8').splitlines()
  rows = [[c.strip() for c in line.split('|')] for line in lines]
  by_name = {row[1]: row[2:] for row in rows if len(row) > 2}
  assert by_name['block_099/kernel'][0] == '(3, 3, 8, 16)'
  assert "'fsdp'" in by_name['block_099/kernel'][3]
  assert by_name['block_042/bias'][:3] == ['(16,)', 'float32', '16']
  total = 100 * (3 * 3 * 8 * 16 + 16)
  assert lines[-1] == f'Total: {total:,} -- {4 * total:,} bytes'
