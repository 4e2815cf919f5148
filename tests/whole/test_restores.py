"""Two real processes restore one and the same state, whatever befalls them.

One run is killed, continues from the local copies of its hosts, is stopped
because a bit of one host has flipped, and continues from a checkpoint that the
second process does not see at first. It ends as a run that nothing befell.
"""

import re
import signal

import numpy as np
import pytest
from support.smoke_runs import record, state
from whole import test_two_processes as two_processes

from cdm.checkpointing import reader
from cdm.distributed import exit_codes

STEPS = {
  'train__num_steps': 8,
  'train__log_every_steps': 1,
  'train__save_every_steps': 4,
  'train__sample_every_steps': 0,
  'eval__every_steps': 0,
}

# In the second process, before and after an update. `before` gets the step.
UPDATES = """
import jax, numpy as np, time
from cdm.training import profile_steps
made = profile_steps.Profile.update
def update(self, step, *args):
  {before}
  state, scalars = made(self, step, *args)
  {after}
  return state, scalars
profile_steps.Profile.update = update
"""
KILL = UPDATES.format(
  before='if step == 8: time.sleep(3); os.kill(os.getpid(), signal.SIGKILL)',
  after='',
)
FLIP = UPDATES.format(before='', after='if step == 7: state = flipped(state)')
FLIP += """
def flipped(state):
  leaves, structure = jax.tree.flatten(state.ema_params)
  leaf = leaves[0]
  values = np.array(leaf.addressable_data(0))
  values.view(np.uint32).reshape(-1)[0] ^= 1
  leaves[0] = jax.make_array_from_single_device_arrays(
    leaf.shape, leaf.sharding, [jax.device_put(values, jax.local_devices()[0])]
  )
  return state.replace(ema_params=jax.tree.unflatten(structure, leaves))
"""
# The storage shows the second process no checkpoint in the first looks at it.
STALE = """
from etils.epath import gpath
looks = collections.Counter()
exists, iterdir = gpath._GPath.exists, gpath._GPath.iterdir
def late(path):
  looks[path.name] += 1
  return (looks[path.name] > 3 or not path.name.isdecimal()) and exists(path)
gpath._GPath.exists = late
gpath._GPath.iterdir = lambda path: (
  each for each in iterdir(path) if not each.name.isdecimal()
)
"""
STALE = f'import collections\n{STALE}'


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """-> (folder, outputs of the three starts of the run that was disturbed)."""
  folder = tmp_path_factory.mktemp('restores')
  two_processes.together(two_processes.training(folder / 'calm', **STEPS))
  words = two_processes.training(
    folder / 'run',
    train__local_copy_every_minutes=1e-6,
    train__local_copy_dir=folder / 'local',
    **STEPS,
  )
  killed = two_processes.end(
    two_processes.begin(words, before=KILL),
    *(exit_codes.LOST_PEERS.code, -signal.SIGKILL),
  )
  assert reader.complete_steps(folder / 'run') == [4]
  flipped = two_processes.end(
    two_processes.begin(words, before=FLIP),
    *[exit_codes.REPLICAS_DIFFER.code] * 2,
  )
  assert reader.complete_steps(folder / 'run') == [4, 6]
  drawn = two_processes.sampling(folder / 'run', folder / 'drawn')
  stale = two_processes.end(
    two_processes.begin(words, drawn, before=STALE), 0, 0
  )
  return folder, (killed, flipped, stale)


def test_a_run_that_was_killed_continues_from_the_copies_of_its_hosts(runs):
  _, (_, flipped, _) = runs
  assert "continuing from the hosts' local copies of step 6" in flipped[0]


def test_a_flipped_bit_of_one_host_ends_the_run_before_it_is_saved(runs):
  _, (_, (first, second), _) = runs
  told = 'cdm: devices hold different values: After step 8, devices that must'
  assert told in first and told in second
  assert re.search(
    r'ema_params/\S+ on device 0 of process 0 \(\S+\), device \d+ of process 1',
    first,
  )


def test_a_process_whose_storage_lags_takes_what_process_0_chose(runs):
  folder, (_, _, (first, _)) = runs
  assert 'continuing from the checkpoint of step 6' in first
  assert (folder / 'drawn' / 'smoke' / '000004.png').exists()


def test_the_run_ends_as_one_that_nothing_befell(runs):
  folder, _ = runs
  assert reader.complete_steps(folder / 'run')[-1] == 8
  expected, mine = (state(folder / name, 8) for name in ('calm', 'run'))
  for name, value in expected.items():
    np.testing.assert_array_equal(mine[name], value, err_msg=name)
  assert record(folder / 'run') == record(folder / 'calm')
  assert not list((folder / 'local').rglob('*.npz'))


BLIND = f"os.environ['CDM_VISIBLE_SECONDS'] = '2'\n{STALE}"
# The second process reads other values than the first.
MISREAD = """
import jax
from cdm.checkpointing import reader
restore = reader._restore
reader._restore = lambda *args, **more: jax.tree.map(
  lambda leaf: jax.make_array_from_single_device_arrays(
    leaf.shape, leaf.sharding, [leaf.addressable_data(0) + 1]
  ),
  restore(*args, **more),
)
"""


@pytest.mark.parametrize(
  ('before', 'ending', 'told'),
  [
    (
      BLIND.replace('> 3', '> 999'),
      exit_codes.NO_STORAGE,
      '/checkpoints/8 is there for process 0, but process 1 on',
    ),
    (
      MISREAD,
      exit_codes.REPLICAS_DIFFER,
      'After step 8, devices that must hold equal values do not: ',
    ),
  ],
)
def test_nothing_is_drawn_unless_all_processes_see_the_same(
  runs, tmp_path, before, ending, told
):
  folder, _ = runs
  running = two_processes.begin(
    two_processes.sampling(folder / 'run', tmp_path), before=before
  )
  for output in two_processes.end(running, *[ending.code] * 2):
    assert told in output
  assert not list(tmp_path.rglob('0*.png'))
