"""Two slices of TPUs that need not exist, where their compiler is installed."""

import importlib.util
import json
import subprocess
import sys

import pytest

from cdm.planning import compile_process

# The gradient of one layer whose parameter is split over `fsdp`, as a step with
# mesh.fsdp computes it: gathered for use, reduced into parts, then summed over
# `data`.
PROGRAM = """
import json
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from cdm.distributed import device_mesh, device_specs
from cdm.planning import described_devices, hlo

piece = device_specs.parse('v5e:4x4:2')
devices = described_devices.of(piece)
mesh = device_mesh.make_mesh(fsdp=0, devices=devices)

def gradient(w, x):
  def loss(w):
    return jnp.tanh(x @ jax.lax.all_gather(w, 'fsdp', axis=1, tiled=True)).sum()
  return jax.lax.psum(jax.grad(loss)(w), 'data')

def split(spec, *shape):
  place = NamedSharding(mesh, spec)
  return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)

rows, columns = P(('data', 'fsdp')), P(None, 'fsdp')
step = jax.jit(jax.shard_map(
  gradient, mesh=mesh, in_specs=(columns, rows), out_specs=columns,
  check_vma=False,
))
done = step.lower(split(columns, 1024, 1024), split(rows, 1024, 1024)).compile()
found = hlo.collectives(done.as_text(), devices=32, num_slices=2)
print(json.dumps([dict(mesh.shape), hlo.summary(found)]))
"""


@pytest.mark.skipif(
  not importlib.util.find_spec('libtpu'), reason='no compiler for TPUs here'
)
def test_two_tpu_slices_exchange_parts_of_the_gradient_and_nothing_else():
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    env=compile_process.child_environment(),
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  )
  shape, sent = json.loads(done.stdout.splitlines()[-1])
  assert shape == {'data': 8, 'fsdp': 4, 'tensor': 1}, 'hosts of four chips'
  between = {kind for kind in sent if kind.endswith(' between slices')}
  assert between == {'all-reduce between slices'}
  # No more than 1 / fsdp of the gradient; the compiler reduces it further over
  # the other devices of the slice, to 1 / 16.
  gradient = 1024 * 1024 * 4
  assert sent['all-reduce between slices']['payload_bytes'] == gradient / 16
  assert {'all-gather', 'reduce-scatter'} <= set(sent)
