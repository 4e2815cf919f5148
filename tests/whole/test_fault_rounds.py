"""The faults of `benchmarks/fault_rounds.py` happen as they are planned."""

import errno
import json
import os
import subprocess
import sys

import pytest

from benchmarks import fault_process, fault_rounds
from cdm.distributed import exit_codes


def fault(folder, kind, index=1, process=1):
  """-> the fault of a process, in a folder where it is armed."""
  (folder / fault_process.ARMED).touch()
  plan = {'kind': kind, 'process': process}
  plan |= {'data': str(folder / 'data'), 'workdir': str(folder / 'run')}
  return fault_process.Fault(plan, folder, index)


def reads(made, path, number=8):
  """-> for every try to open a path, the errno it fails with or None."""
  found = []
  for _ in range(number):
    try:
      made.hear('open', (str(path), 'r', 0))
      found.append(None)
    except OSError as error:
      assert str(path) in str(error)
      found.append(error.errno)
  return found


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
  monkeypatch.setattr(fault_process, 'PACE', 0.0)


@pytest.mark.parametrize(
  ('kind', 'failing'),
  [
    ('read', fault_process.FEW_READS),
    ('read lasting', 8),
    ('kill', 0),
    ('', 0),
  ],
)
def test_reads_of_one_start_of_one_process_fail_as_planned(
  kind, failing, tmp_path
):
  picture = tmp_path / 'data' / 'x.png'
  expected = [errno.EIO] * failing + [None] * (8 - failing)
  assert reads(fault(tmp_path, kind, index=0), picture) == [None] * 8
  first = fault(tmp_path, kind)
  assert reads(first, tmp_path / 'other') == [None] * 8
  assert reads(first, picture) == expected
  again = fault(tmp_path, kind)
  assert reads(again, picture) == [None] * 8


def test_nothing_fails_before_it_is_armed(tmp_path):
  made = fault(tmp_path, 'read lasting')
  (tmp_path / fault_process.ARMED).unlink()
  assert reads(made, tmp_path / 'data' / 'x.png') == [None] * 8


def test_a_slow_storage_answers_once_after_its_time(tmp_path, monkeypatch):
  slept = []
  monkeypatch.setattr(fault_process.time, 'sleep', slept.append)
  reads(fault(tmp_path, 'slow read'), tmp_path / 'data' / 'x.png')
  assert slept.count(fault_process.SLOW_SECONDS) == 1
  slept.clear()
  (tmp_path / fault_process.TAKEN).unlink()
  save = fault(tmp_path, 'slow save')
  path = str(tmp_path / 'run' / 'checkpoints' / '2' / 'metadata')
  save.hear('open', (path, 'r', 0))
  assert not slept
  save.hear('open', (path, 'w', 0))
  assert slept == [fault_process.SLOW_SECONDS]


def test_the_start_folder_lets_a_process_fail_that_knows_nothing_of_it(
  tmp_path,
):
  """A program of one line stands in for cdm."""
  fault_process.write_start_folder(tmp_path / 'start')
  (tmp_path / fault_process.ARMED).touch()
  picture = tmp_path / 'data'
  picture.write_bytes(b'x')
  plan = {'kind': 'read lasting', 'process': 2, 'data': str(picture)}
  path = tmp_path / 'plan.json'
  path.write_text(json.dumps(plan | {'workdir': ''}), encoding='utf-8')
  program = f'import time; open({str(picture)!r}); print(time.time())'
  codes = {}
  for index in (1, 2):
    codes[index] = subprocess.run(
      [sys.executable, '-c', program, 'cdm'],
      env=os.environ
      | {
        'PYTHONPATH': os.pathsep.join([str(tmp_path / 'start'), *sys.path]),
        'SLURM_PROCID': str(index),
        fault_process.PLAN: str(path),
      },
      stderr=subprocess.PIPE,
      text=True,
      encoding='utf-8',
    )
    assert (tmp_path / f'pid{index}').read_text(encoding='utf-8').isdigit()
  assert codes[1].returncode == 0
  assert 'Input/output error' in codes[2].stderr


def test_the_clock_jumps_for_one_process(tmp_path):
  made = fault(tmp_path, 'clock back')
  assert made.jump() == -fault_process.JUMP_SECONDS
  assert fault(tmp_path, 'clock ahead').jump() == 0.0  # in a later start


def test_a_round_depends_on_its_number_and_the_seed_only():
  rounds = [
    fault_rounds.planned(n, fault_rounds.KINDS, seed=0) for n in range(44)
  ]
  assert {row['kind'] for row in rounds[:11]} == set(fault_rounds.KINDS)
  assert {row['process'] for row in rounds} == {0, 1, 2, 3}
  assert rounds[7] == fault_rounds.planned(7, fault_rounds.KINDS, seed=0)
  assert rounds[:11] != [
    fault_rounds.planned(n, fault_rounds.KINDS, seed=1) for n in range(11)
  ]


def test_how_starts_ended_is_read_from_what_the_launchers_print():
  root = fault_rounds.ROOT / 'launch'
  script = (root / 'templates' / 'slurm.sh').read_text(encoding='utf-8')
  assert 'exit code $CODE, job $STATE' in script
  local = (root / 'targets' / 'local.py').read_text(encoding='utf-8')
  assert "f'launch.py: the run {what}; restart {restart + 1} of" in local
  said = (
    f'2026-11-27 exit code {exit_codes.LOST_PEERS.code}, job RUNNING\n'
    '[0] step 5\nlaunch.py: the run died of signal 9; restart 1 of 50.\n'
  )
  found = [
    next(filter(None, match.groups()))
    for match in fault_rounds.ENDED.finditer(said)
  ]
  assert found == ['exit code 77', 'the run died of signal 9']


def test_the_summary_counts_what_ended_the_same():
  row = {'kind': 'kill', 'verdict': 'same', 'recovered_seconds': 9.6}
  row |= {'starts_ended': ['exit code 137', 'exit code 0']}
  bad = row | {'verdict': 'has not ended', 'recovered_seconds': None}
  assert fault_rounds.summary([row, bad])[2:] == [
    '| kill | 2 | 1 | exit code 0, exit code 137 | 10 s at most |'
  ]
