"""A build says what it needs, and is refused where that is not there."""

import collections
import importlib.util
import types

import pytest

from cdm.data import build_tfds, tfds

Usage = collections.namedtuple('Usage', 'total used free')


def builder(root, *, by_hand='put a.tar here', urls=(), configs=()):
  return types.SimpleNamespace(
    data_dir_root=str(root),
    url_infos={
      str(i): types.SimpleNamespace(size=size) for i, size in enumerate(urls)
    },
    MANUAL_DOWNLOAD_INSTRUCTIONS=by_hand,
    BUILDER_CONFIGS=list(configs),
  )


@pytest.fixture
def free(monkeypatch):
  """Sets the free space of every disk."""

  def set_to(count):
    monkeypatch.setattr(
      build_tfds.shutil, 'disk_usage', lambda _: Usage(0, 0, count)
    )

  return set_to


def test_tars_that_were_fetched_by_hand_are_what_the_records_take(
  tmp_path, free
):
  with pytest.raises(ValueError, match='manual has no files. put a.tar here'):
    build_tfds.check_room(builder(tmp_path), 'x')
  manual = tmp_path / 'downloads' / 'manual'
  manual.mkdir(parents=True)
  (manual / 'a.tar').write_bytes(bytes(1_000_000))
  free(1_100_000)
  told = build_tfds.check_room(builder(tmp_path), 'x')
  assert f'x needs about 1.1 MB in {tmp_path}: 0 kB of downloads' in told
  assert '100 kB of temporary files; 1.1 MB are free' in told
  assert 'about 0.1 hours' in told
  free(1_099_999)
  with pytest.raises(ValueError, match='That does not fit. Free space, or'):
    build_tfds.check_room(builder(tmp_path), 'x')


def test_downloads_are_counted_too(tmp_path, free):
  free(10**12)
  made = builder(tmp_path / 'not' / 'there', by_hand=None, urls=(10**9, 10**9))
  assert 'needs about 4.2 GB' in build_tfds.check_room(made, 'x')
  free(10**9)
  with pytest.raises(ValueError, match='2 GB of downloads.* does not fit'):
    build_tfds.check_room(made, 'x')
  # Its files may be those of other configs.
  made.BUILDER_CONFIGS = ['a', 'b']
  build_tfds.check_room(made, 'x')
  assert 'room is unknown' in build_tfds.check_room(builder('gs://b/x'), 'x')
  assert 'does not say' in build_tfds.check_room(
    builder(tmp_path, by_hand=None), 'x'
  )


def test_nothing_is_built_without_tensorflow(monkeypatch):
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: None if name == 'tensorflow' else found(name),
  )
  with pytest.raises(ValueError, match=r'needs TensorFlow.*Nothing was built'):
    build_tfds.build('imagenet2012')
  assert 'tensorflow]' in tfds.tensorflow_first()
