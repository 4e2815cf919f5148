"""Picture files are complete or absent, and hold exactly what was given."""

import numpy as np
import pytest
from PIL import Image

from cdm.reporting import image_files


def images(n=5, size=6):
  return np.random.default_rng(0).integers(
    0, 256, (n, size, size, 3), dtype=np.uint8
  )


def test_png_gives_back_every_pixel(tmp_path):
  x = images()[0]
  image_files.write_png(tmp_path / 'a.png', x)
  np.testing.assert_array_equal(Image.open(tmp_path / 'a.png'), x)
  assert [p.name for p in tmp_path.iterdir()] == ['a.png']


def test_numpy_reads_the_streamed_archive(tmp_path):
  """numpy.load is what the ADM evaluator uses."""
  x, labels = images(), np.array([3, 1, 4, 1, 5])
  path = tmp_path / 'samples.npz'
  image_files.write_npz(path, iter(x), shape=x.shape, labels=labels)
  with np.load(path) as archive:
    assert archive.files == ['arr_0', 'arr_1']
    assert archive['arr_0'].dtype == np.uint8
    np.testing.assert_array_equal(archive['arr_0'], x)
    np.testing.assert_array_equal(archive['arr_1'], labels)


def test_an_archive_of_the_wrong_count_never_appears(tmp_path):
  x = images()
  with pytest.raises(ValueError, match=r'4 images .* 5 were expected'):
    image_files.write_npz(tmp_path / 's.npz', iter(x[:4]), shape=x.shape)
  assert not list(tmp_path.iterdir())


def test_an_archive_of_mixed_sizes_never_appears(tmp_path):
  x = images()
  with pytest.raises(ValueError, match=r'Image 1 is uint8 \(3, 6, 3\)'):
    image_files.write_npz(
      tmp_path / 's.npz', iter([x[0], x[1][:3]]), shape=x.shape
    )
  assert not list(tmp_path.iterdir())


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
  with pytest.raises(TypeError):
    image_files.write_png(tmp_path / 'a.png', np.zeros((4, 4, 7), np.uint8))
  assert not list(tmp_path.iterdir())
