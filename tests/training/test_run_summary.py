"""What a run says of itself when it starts."""

import jax
from support import smoke_runs

from cdm.config import loader
from cdm.training import program, run_summary


def test_a_chosen_mesh_is_said_with_what_a_device_holds():
  c = loader.load(smoke_runs.CONFIGS / 'smoke.py', [('mesh.fsdp', '0')])
  made = program.assemble(c, devices=jax.devices(), num_slices=2)
  line = run_summary.mesh_line(c, made)
  assert line.startswith(
    'mesh: data 2, fsdp 4 (chosen by mesh.fsdp=0: the devices of a host); '
  )
  # 209,267 parameters, their EMA and two moments: a quarter each, except
  # biases and scales, which stay whole.
  assert line.endswith('holds 876 kB of 3.35 MB of the training state')
  moment = made.state.opt_state
  assert all(
    leaf.sharding.is_fully_replicated
    for leaf in jax.tree.leaves(moment)
    if leaf.ndim < 2
  )
