"""Two real processes, each with its part of the images, find what one finds."""

import numpy as np
from PIL import Image
from support import smoke_runs
from whole.test_two_processes import together

from cdm.sampling import neighbour_list, shrunk_images


def search(out):
  return [
    *('upscale', '--held_out=5', '--batch_size=4', f'--out={out}'),
    f'--workdir=nearest_neighbour:{smoke_runs.CONFIGS / "smoke_sr.py"}',
    '--config.train_data.num_images=37',  # no multiple of the devices
  ]


def test_two_processes_find_the_neighbours_of_one(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  together(search(tmp_path / 'two'))
  folder = tmp_path / 'cache' / 'cdm' / shrunk_images.CACHE
  rows = [np.load(path) for path in folder.rglob('*.npy')]
  there = [int((x[:, 0] == shrunk_images.THERE).sum()) for x in rows]
  assert sorted(there) == [18, 19]  # each process has a part
  with smoke_runs.on(1):
    assert smoke_runs.cdm(*search(tmp_path / 'one')) == 0
  names = neighbour_list.FILE, *(f'upscaled/{n:06d}.png' for n in range(5))
  for name in names:
    one, two = (tmp_path / run / name for run in ('one', 'two'))
    if name.endswith('.png'):
      one, two = (np.asarray(Image.open(path)) for path in (one, two))
      np.testing.assert_array_equal(one, two)
    else:
      assert one.read_bytes() == two.read_bytes()
