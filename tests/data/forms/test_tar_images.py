"""The list of the images in tars is kept, and used while they are the same."""

import os

import numpy as np
import pytest

from cdm.data.forms import kept_scan, tar_images
from cdm.data.forms.tar_images import Labelled
from cdm.data.forms.tar_index import Member

HOUR_AGO = 1_700_000_000


@pytest.fixture
def tars(tmp_path, monkeypatch):
  """Three tars, of two images, none and one."""
  monkeypatch.setattr(kept_scan, 'LEAST_SECONDS', 0.0)
  paths = [tmp_path / f'{n}.tar' for n in range(3)]
  for path in paths:
    path.write_bytes(bytes(100))
    os.utime(path, (HOUR_AGO, HOUR_AGO))
  return list(map(str, paths))


def read(tars, kind='k'):
  """-> (the images, how many tars were scanned)."""
  scanned = []

  def scan(tar, left_out):
    number = tars.index(tar)
    scanned.append(tar)
    left_out['hidden'] += 1
    both = [
      Labelled(Member('ü.png', 50, 50), -1),
      Labelled(Member('b', 0, 9), 7),
    ]
    return [both, [], both[1:]][number]

  return tar_images.find(tars, scan, kind=kind), len(scanned)


def test_a_second_start_scans_nothing(tars):
  first, scanned = read(tars)
  again, scanned_again = read(tars)
  assert (scanned, scanned_again) == (3, 0)
  for images in (first, again):
    assert list(images.names) == ['ü.png', 'b', 'b']
    assert images.offsets.tolist() == [50, 0, 0]
    assert images.sizes.tolist() == [50, 9, 9]
    assert images.labels.tolist() == [-1, 7, 7]
    assert images.counts.tolist() == [2, 0, 1]
    assert images.left_out == {'hidden': 3}
  assert read(tars, 'other')[1] == 3


@pytest.mark.parametrize(
  'arrays',
  [
    {'offsets': np.array([51, 0, 0])},  # ends behind the end
    {'offsets': np.array([0, 0, 2**63 - 1])},
    {'offsets': np.array([-1, 0, 0])},
    {'sizes': np.array([50, 9, -9])},
    {'sizes': np.array([50, 9])},
    {'sizes': np.array([50, 9, 2**63 - 1])},
    {'ends': np.array([9, 1, 8])},
    {'ends': np.array([1, 2, 99])},
    {'ends': np.array([-1, 2, 8])},
    {'counts': np.array([3])},
    {'counts': np.array([2, 0, 2])},
    {'counts': np.array([4, -2, 1])},
    {'left_out': np.frombuffer(b'[]', np.uint8)},
  ],
)
def test_a_kept_list_that_was_changed_is_not_believed(tars, arrays, tmp_path):
  read(tars)
  (kept,) = (tmp_path / '.cdm-index').iterdir()
  with np.load(kept) as file:
    np.savez(kept, **(dict(file) | arrays))
  images, scanned = read(tars)
  assert scanned == 3 and images.counts.tolist() == [2, 0, 1]
