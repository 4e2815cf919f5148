"""What a run costs each process does not grow with their number.

The short version of `benchmarks/scale.py`: fewer commands, and two and four
processes in the place of eight.
"""

import json
import subprocess
import sys
import threading

import pytest

from benchmarks import counted_cdm, file_calls, scale

# The loop, the checkpoints and the pictures are those of `cdm train`; the
# network has two layers, because compiling is what costs.
TRAIN = """
import jax
from cdm.data import folder, pipeline
from cdm.distributed import initialize
from support import tiny_run
initialize.join()
index, count = jax.process_index(), jax.process_count()
source = folder.Folder({data!r})
options = pipeline.PipelineOptions(image_size=tiny_run.SIZE[0])
for steps in (2, 4):  # the second time from the checkpoint
  batches = pipeline.make_iterator(
    source, options, batch_size=tiny_run.BATCH // count, seed=0,
    process_index=index, process_count=count
  )
  run = tiny_run.Run({workdir!r}, shape=(count, 1, 1), batches=batches)
  run.train(steps)
  batches.close()
"""


SAVES = 2


def costs(folder, processes):
  """-> the counts of so many processes."""
  home = folder / f'p{processes}'
  home.mkdir()
  scale.write_data(home)
  (home / 'weights.pth').write_bytes(b'weights')
  words = scale.commands(home)['judge']
  words[1] = f'--samples={home / "data"}'
  train = TRAIN.format(data=str(home / 'data'), workdir=str(home / 'run'))
  return scale.run(
    home,
    [[counted_cdm.PROGRAM, train], words],
    processes,
    folder / f'out{processes}',
    count_files=False,  # strace would cost more than all the rest
  )


class Attempts:
  """Counts of two and of four processes, measured when they are asked for."""

  def __init__(self, new_folder):
    self._new_folder, self._found = new_folder, []

  def __getitem__(self, k):
    while len(self._found) <= k:
      folder = self._new_folder('scale')
      self._found.append(
        [{'processes': n, 'counts': costs(folder, n)} for n in (2, 4)]
      )
    return self._found[k]


@pytest.fixture(scope='module')
def attempts(tmp_path_factory):
  return Attempts(tmp_path_factory.mktemp)


@pytest.fixture
def rows(attempts):
  return attempts[0]


# TensorStore writes an index of what it has at hand, so the bytes depend on
# when its threads ran: 33,150 to 36,026 were seen for the same work.
TIMED = ('bytes TensorStore read', 'bytes TensorStore wrote')
STORE = ('store calls', 'bytes of store calls')


@pytest.mark.parametrize(
  'kind', (*scale.PYTHON, *(kind for kind in scale.SENT if kind not in STORE))
)
def test_what_the_busiest_process_does_does_not_grow(kind, attempts):
  """One tenth and one call more are no growth.

  What a number of processes costs is the least of the attempts. A cost that
  grows does so in each of them.
  """
  seen = []
  for k in range(3 if kind in TIMED else 1):
    seen.append(
      {row['processes']: scale.busiest(row, kind) for row in attempts[k]}
    )
    points = {number: min(one[number] for one in seen) for number in seen[0]}
    if not scale.grows(points, kind):
      return
  pytest.fail(f'{kind} grows: {seen}')


def test_process_0_hears_once_of_each_save_from_each_other_process(rows):
  """The only cost that grows: a short message, in the key-value store."""
  calls = {row['processes']: scale.busiest(row, STORE[0]) for row in rows}
  size = {row['processes']: scale.busiest(row, STORE[1]) for row in rows}
  assert calls[4] - calls[2] <= SAVES * 2, calls
  assert size[4] - size[2] <= 100 * SAVES * 2, size


def test_the_calls_of_a_process_about_files_of_a_folder_are_counted(tmp_path):
  if reason := file_calls.unavailable():
    pytest.skip(reason)
  folder = tmp_path / 'of an é'
  place = folder / 'run' / 'part'
  place.mkdir(parents=True)
  (place / 'x').write_bytes(b'12345')
  program = f"""
import os, threading
def work():
  for _ in range(3):
    with open({str(place / 'x')!r}, 'rb', buffering=0) as file:
      file.read(4)
  os.listdir({str(place)!r})
  os.stat({str(place / 'x')!r})
  with open({str(place / 'y')!r}, 'wb', buffering=0) as file:
    file.write(b'12')
    os.fsync(file.fileno())
  os.replace({str(place / 'y')!r}, {str(place / 'z')!r})
  os.unlink({str(place / 'z')!r})
thread = threading.Thread(target=work)
thread.start(), thread.join()
"""
  words = [*file_calls.command(tmp_path / 'calls'), sys.executable, '-c']
  subprocess.run([*words, program], check=True)
  assert file_calls.count(tmp_path / 'calls', folder) == {
    'run/part': {
      'files opened': 5,  # a listing opens the folder
      'bytes read': 12,
      'listings': 1,
      'stats': 1,
      'bytes written': 2,
      'syncs': 1,
      'renames': 1,
      'removals': 1,
    }
  }


def test_what_python_does_below_a_folder_is_counted(tmp_path):
  """In a process of its own, because an audit hook stays for good."""
  (tmp_path / 'x').write_bytes(b'1')
  program = f"""
import os, pathlib
from benchmarks import counted_cdm
counter = counted_cdm.Counter()
counted_cdm.count_python_files(counter, {str(tmp_path)!r})
path = pathlib.Path({str(tmp_path)!r})
path.joinpath('x').read_bytes()
open(path / 'y', 'w', encoding='utf-8').close()
os.listdir(path), list(os.scandir(path))
path.joinpath('x').exists(), os.path.lexists(path / 'x')
open(path / '.cdm-lock', 'w', encoding='utf-8').close()
open(os.devnull, 'rb').close()
print(dict(counter.counts))
"""
  ran = subprocess.run(
    [sys.executable, '-c', program],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
    encoding='utf-8',
    env={'PYTHONPATH': str(scale.ROOT)},
  )
  assert eval(ran.stdout) == {
    'files opened by Python': 2,
    'files listed by Python': 2,
    'files asked about by Python': 2,
  }


def test_a_call_inside_another_one_counts_as_part_of_it():
  class Jax:
    def outer(self):
      return self.inner() + b'34'

    def inner(self):
      return b'12'

  counter = counted_cdm.Counter()
  for name in ('outer', 'inner'):
    counter.wrap(Jax, name, name, lambda _, result: len(result))
  assert Jax().outer() == b'1234'
  thread = threading.Thread(target=Jax().inner, name=counted_cdm.MONITOR)
  thread.start(), thread.join()
  assert counter.counts.pop('seconds waited') >= 0
  assert counter.counts == {
    **{'outer': 1, 'bytes of outer': 4},
    **{'monitor calls': 1, 'bytes of monitor calls': 2},
  }


def test_the_line_through_the_counts_is_that_of_least_squares():
  assert scale.line({2: 14.0, 4: 18.0, 8: 26.0}) == pytest.approx((10.0, 2.0))
  # Work that processes share becomes less, but never negative.
  assert scale.line({2: 32.0, 4: 16.0, 8: 8.0}) == (8.0, 0.0)


@pytest.mark.parametrize(
  ('points', 'kind', 'expected'),
  [
    ({2: 100, 8: 110}, 'stats', False),
    ({2: 100, 8: 111}, 'stats', True),
    ({2: 100, 8: 25}, 'stats', False),
    ({2: 3, 8: 4}, 'barriers', False),
    ({2: 3, 8: 5}, 'barriers', True),
    ({2: 100, 8: 4000}, 'bytes read', False),
    ({2: 0, 8: 5000}, 'bytes read', True),
  ],
)
def test_more_than_a_tenth_and_more_than_one_call_is_growth(
  points, kind, expected
):
  assert scale.grows(points, kind) is expected


def test_the_table_keeps_what_was_measured_apart_from_the_line():
  rows = [
    {
      'command': 'train',
      'processes': processes,
      'counts': [{'stats': 10 + processes, 'seconds': 2.0}, {'stats': 1}],
    }
    for processes in (1, 2, 4, 8)
  ]
  head, _, stats, seconds = scale.table(json.loads(json.dumps(rows)))
  assert head.endswith('| 1 | 2 | 4 | 8 | grows | c0 + c1 P | 64 (line) | 512 '
                       '(line) |')  # fmt: skip
  assert stats == (
    '| train | stats | 11 | 12 | 14 | 18 | yes | 10 + 1 P | 74 | 522 |'
  )
  assert seconds == '| train | seconds | 2 | 2 | 2 | 2 |  |  |  |  |'
  assert scale.growing(rows) == [('train', 'stats', {2: 12, 4: 14, 8: 18})]


def test_the_short_table_adds_up_what_one_process_does():
  counts = [{'stats': 3, 'files opened': 4, 'barriers': 2}, {'stats': 6}]
  rows = [{'command': 'train', 'processes': 2, 'counts': counts}]
  assert scale.table(scale.grouped(rows), tuple(scale.GROUPS))[2:] == [
    '| train | calls about files | 7 |  |  |  |  |',
    '| train | collectives | 2 |  |  |  |  |',
  ]


def test_of_repeats_the_smallest_count_of_the_busiest_process_stays():
  def row(*stats):
    counts = [{'stats': n, 'places': {'run': {'stats': n}}} for n in stats]
    return {'command': 'train', 'processes': len(stats), 'counts': counts}

  kept = scale.smallest([row(9, 3), row(4, 5), row(2, 8), row(7)])
  assert [(r['processes'], scale.busiest(r, 'stats')) for r in kept] == [
    *((2, 5), (1, 7))
  ]
  assert scale.busiest_at(kept[0], 'run', 'stats') == 5
