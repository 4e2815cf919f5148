"""The quality of a JPEG file is read off its tables."""

import io

import numpy as np
import pytest
from PIL import Image

from cdm.data.photographs import jpeg_quality


def jpeg(mode='RGB', **options):
  file = io.BytesIO()
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).convert(mode).save(
    file, 'JPEG', **options
  )
  return file.getvalue()


def test_libjpegs_qualities_come_back():
  """libjpeg, which Pillow uses, scales the tables; every quality is found."""
  found = [jpeg_quality.estimate(jpeg(quality=q)) for q in range(1, 101)]
  assert found == list(range(1, 101))


@pytest.mark.parametrize('options', [{'progressive': True}, {'optimize': True}])
def test_other_ways_of_storing_do_not_matter(options):
  assert jpeg_quality.estimate(jpeg('L', quality=63, **options)) == 63


def test_tables_of_another_program_get_the_nearest_quality():
  tables = [[min(255, 2 * v) for v in t] for t in tables_of(80)]
  assert abs(jpeg_quality.estimate(jpeg(qtables=tables)) - 60) <= 1


def tables_of(quality):
  with Image.open(io.BytesIO(jpeg(quality=quality))) as image:
    return [image.quantization[0], image.quantization[1]]


def test_a_file_without_tables_has_no_quality():
  assert jpeg_quality.estimate(b'\xff\xd8\xff\xd9') is None
  assert jpeg_quality.estimate(b'\xff\xd8\xff\xdb\0\4\0\1\xff\xd9') is None
