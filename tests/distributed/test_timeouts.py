"""How long the processes of a run wait, by their number or as a user says."""

import pytest

from cdm.distributed import rendezvous, timeouts


@pytest.mark.parametrize('timeout', timeouts.ALL, ids=lambda t: t.variable)
def test_a_variable_replaces_the_default_and_must_be_a_number(timeout):
  for text in ('soon', '0', '-1', 'inf', 'nan'):
    given = {timeout.variable: text}
    with pytest.raises(ValueError, match=f'^{timeout.variable} is .*seconds'):
      timeouts.check(given)
  given = {timeout.variable: '7.5'}
  timeouts.check(given)
  for processes in (1, 1000):
    found = timeouts.seconds(timeout, processes=processes, environment=given)
    assert found == 7.5


@pytest.mark.parametrize('timeout', timeouts.ALL, ids=lambda t: t.variable)
def test_a_default_grows_with_the_processes_unless_it_finds_the_dead(timeout):
  found = [
    timeouts.seconds(timeout, processes=n, environment={})
    for n in (1, 2, 64, 65, 512)
  ]
  grown = [1.0, 1.0, 1.0, 1.25, 2.75]
  if timeout is timeouts.HEARTBEAT:
    grown = [1.0] * 5
  assert found == [timeout.default * factor for factor in grown]


@pytest.mark.parametrize(
  ('environment', 'processes'),
  [
    ({}, 1),
    ({'SLURM_STEP_NUM_TASKS': '128'}, 128),
    ({'OMPI_COMM_WORLD_SIZE': '65'}, 65),
    ({'TPU_WORKER_HOSTNAMES': 'a,b,c', 'MEGASCALE_NUM_SLICES': '4'}, 12),
    ({'SLURM_STEP_NUM_TASKS': 'many'}, 1),
  ],
)
def test_the_launcher_says_how_many_processes_will_come(environment, processes):
  assert timeouts.expected_processes(environment) == processes
  assert rendezvous.patience(environment) == timeouts.seconds(
    timeouts.JOIN, processes=processes, environment={}
  )
  assert rendezvous.patience(environment, 257) == 300.0 * 2
