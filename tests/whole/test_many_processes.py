"""What a process lists, reads and is told does not grow with their number."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import conftest
import numpy as np
import pytest
from PIL import Image
from support import counted_run

NUM, STAGES = counted_run.NUM, 2
OVERVIEW = NUM * STAGES  # process 0 shows all of so few, in both stages


def together(folder, count):
  """-> the counts of every process of a run of `count`."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  environment = os.environ | {
    'PYTHONPATH': os.pathsep.join(sys.path),
    'JAX_NUM_CPU_DEVICES': '1',
    'XLA_FLAGS': ' '.join(conftest.COMPILER_FLAGS),
  }
  words = [sys.executable, counted_run.__file__, address, str(count)]
  running = [
    subprocess.Popen([*words, str(i), str(folder)], env=environment)
    for i in range(count)
  ]
  try:
    codes = [process.wait(timeout=300) for process in running]
  finally:
    for process in running:
      process.kill()
  assert codes == [0] * count
  files = [folder / f'counts-{i}.json' for i in range(count)]
  return [json.loads(file.read_text(encoding='utf-8')) for file in files]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """-> {number of processes: (folder, counts of every process)}."""
  found = {}
  for count in (1, 2, 4):
    folder = tmp_path_factory.mktemp(f'of-{count}')
    counted_run.write_pictures(folder)
    if count == 1:
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counted_run.numbered_names, 'PER_FOLDER', 1000)
        counts = [json.loads(json.dumps(counted_run.work(folder)))]
    else:
      counts = together(folder, count)
    found[count] = folder, counts
  return found


def total(runs, count, part, name):
  return sum(each[part].get(name, 0) for each in runs[count][1])


def pictures(folder):
  return {
    path.relative_to(folder).as_posix(): np.asarray(Image.open(path))
    for path in pathlib.Path(folder).rglob('*.png')
  }


def test_any_number_of_processes_writes_the_same_images(runs):
  expected = pictures(runs[1][0] / 'results')
  assert 'samples/large/005/000021.png' in expected
  for count in (2, 4):
    found = pictures(runs[count][0] / 'results')
    assert found.keys() == expected.keys()
    for name, image in expected.items():
      np.testing.assert_array_equal(found[name], image, err_msg=name)


def test_all_get_the_statistics_that_one_computes(runs):
  expected = runs[1][1][0]['statistics']
  for count in (2, 4):
    for found in runs[count][1]:
      assert found['statistics']['first'] == expected['first']
      for name in ('mean', 'scatter'):
        np.testing.assert_allclose(
          found['statistics'][name], expected[name], rtol=1e-12
        )
      assert found['statistics'] == runs[count][1][0]['statistics']


@pytest.mark.parametrize('count', [1, 2, 4])
def test_every_image_is_looked_at_by_one_process(runs, count):
  # When the run is continued: all but the one that went, the overview, and the
  # archive of the last stage. The size of the first is known to all.
  looked = NUM * STAGES - 1 + OVERVIEW + NUM
  assert total(runs, count, 'continued', 'opened') == looked
  assert total(runs, count, 'judged', 'opened in large') <= NUM + count
  thousands = -(-NUM // 4)
  listed = total(runs, count, 'continued', 'listed')
  assert listed <= STAGES * (1 + thousands) + 2 * STAGES * thousands + 4 * count
  # Every picture is read when it is checked and when it is drawn, for its mark,
  # and for the overview if it is one tile.
  each = total(runs, count, 'pictures', 'opened in pictures')
  assert each <= 4 * counted_run.PICTURES
  # Beside the overview, which process 0 reads for.
  read = total(runs, count, 'held out', 'read')
  assert read <= 2 * counted_run.HELD_OUT + count


def test_collectives_of_a_process_do_not_grow_with_their_number(runs):
  for part in ('drawn', 'continued', 'pictures', 'judged', 'ranked'):
    two, four = (
      [each[part]['collectives'] for each in runs[count][1]] for count in (2, 4)
    )
    assert len(set(two)) == 1 and four == [two[0]] * 4, part
    sent = [
      max(each[part]['bytes'] for each in runs[count][1]) for count in (2, 4)
    ]
    assert sent[1] <= 1.1 * sent[0], part
  # Sixteen batches are exchanged with the first and the last of them, not each.
  assert runs[4][1][0]['ranked']['collectives'] < 16
