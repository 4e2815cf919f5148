"""A trace is written of the steps that a config names, and of no others."""

import gzip
import json
import re
import shlex
import signal

import pytest
from support import tiny_run

from cdm.training import hooks, profile_steps
from cdm.training.preemption import Stop


def traced(workdir):
  """-> the numbers of the traced steps, one list per trace, oldest first."""
  paths = sorted((workdir / 'profile').rglob('*.trace.json.gz'))
  events = [
    json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
    for path in paths
  ]
  return [
    sorted(
      {
        int(event['args']['step_num'])
        for event in trace
        if event.get('name') == 'train' and 'step_num' in event.get('args', {})
      }
    )
    for trace in events
  ]


def train(workdir, text, num_steps=6, stop_at=None):
  """-> the lines said."""
  said, stop = [], Stop()
  run = tiny_run.Run(workdir)
  with profile_steps.Profile(
    profile_steps.parse(text, num_steps), workdir, say=said.append
  ) as profile:

    def update(step, *args):
      if step == stop_at:
        stop.signum = signal.SIGTERM
      return profile.update(step, *args)

    made = hooks.Hooks(update=update)
    run.train(num_steps, hooks=made, stop=stop, log_every=2)
  return said


def test_a_run_that_stops_within_the_range_traces_the_rest_when_it_goes_on(
  tmp_path,
):
  tmp_path = tmp_path / 'a b'
  (first,) = train(tmp_path, '2:5', stop_at=3)
  assert traced(tmp_path) == [[2, 3]]
  (second,) = train(tmp_path, '2:5')
  assert sorted(traced(tmp_path)) == [[2, 3], [4, 5]]
  assert train(tmp_path, '2:5', num_steps=8) == []
  assert first.startswith('a profile from step 2 is in ')
  assert second.startswith('a profile of steps 4-5 is in ')
  found = re.search(r'open (.*\.trace\.json\.gz) at https://ui.perf', second)
  assert (tmp_path / found[1]).is_file()
  (command,) = re.findall('`(.*)`', second)
  assert shlex.split(command) == ['xprof', str(tmp_path / 'profile')]


def test_a_trace_that_cannot_be_written_does_not_end_the_run(tmp_path):
  (tmp_path / 'profile').write_text('in the way', encoding='utf-8')
  (line,) = train(tmp_path, '1:2', num_steps=3)
  assert line.startswith('warning:') and 'profile' in line


def test_no_range_writes_no_trace(tmp_path):
  assert train(tmp_path, '', num_steps=2) == []
  assert not (tmp_path / 'profile').exists()


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('100', "is '100'; it must be 'FIRST:LAST'"),
    ('0:3', "it must be 'FIRST:LAST'"),
    ('5:4', 'in ascending order'),
    ('-1:4', "it must be 'FIRST:LAST'"),
    ('1:²', "it must be 'FIRST:LAST'"),
    ('90:101', 'the run ends at step 100'),
  ],
)
def test_a_range_that_no_run_can_trace_is_refused(text, message):
  with pytest.raises(ValueError, match=message):
    profile_steps.parse(text, 100)
