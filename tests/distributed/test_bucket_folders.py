"""A folder of a bucket has a mirror, and a path in it stands for its URL."""

import pytest

from cdm.distributed import bucket_folders


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(bucket_folders, '_mirrors', {})


def test_a_path_in_a_mirror_stands_for_its_url():
  folder = bucket_folders.mirror('gs://bucket/runs/a/', written=True)
  assert bucket_folders.url_of(folder) == 'gs://bucket/runs/a'
  assert bucket_folders.url_of(folder / 'base') == 'gs://bucket/runs/a/base'
  assert bucket_folders.url_of(folder.parent) is None
  storage = bucket_folders.storage(folder / 'checkpoints')
  assert str(storage) == 'gs://bucket/runs/a/checkpoints'
  text = f'in {folder}/x and {folder}'
  shown = 'in gs://bucket/runs/a/x and gs://bucket/runs/a'
  assert bucket_folders.with_urls(text) == shown


def test_a_cache_behind_a_link_makes_no_difference(tmp_path, monkeypatch):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'link').symlink_to('real')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'link'))
  folder = bucket_folders.mirror('gs://bucket/runs/a', written=True)
  assert bucket_folders.url_of(folder.resolve()) == 'gs://bucket/runs/a'


def test_a_path_elsewhere_stays_as_it_is(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  bucket_folders.mirror('gs://bucket/runs/a', written=True)
  assert bucket_folders.shown('runs/a') == 'runs/a'
  assert str(bucket_folders.storage('runs/a')) == str(tmp_path / 'runs/a')


def test_a_reader_has_another_mirror_than_a_run_that_writes():
  url = 'gs://bucket/runs/a'
  written = bucket_folders.mirror(url, written=True)
  read = bucket_folders.mirror(url, written=False)
  assert written != read
  assert bucket_folders.url_of(written) == bucket_folders.url_of(read) == url


@pytest.mark.parametrize(
  ('url', 'message'),
  [
    ('gs://', 'names no bucket'),
    ('gs://b/a', 'names no bucket'),
    ('gs://Bucket/a', 'names no bucket'),
    ('gs://../a', 'names no bucket'),
    ('gs://bucket/../a', 'relative part'),
    ('gs://bucket/a//b', 'empty or relative part'),
    ('gs://bucket/a\nb', 'a sign that no folder can have'),
  ],
)
def test_a_url_that_can_have_no_mirror_is_refused(url, message):
  with pytest.raises(ValueError, match=message):
    bucket_folders.mirror(url, written=True)
