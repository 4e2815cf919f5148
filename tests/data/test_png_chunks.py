"""A PNG file is known to be whole without decoding it."""

import io

import numpy as np
import pytest
from PIL import Image

from cdm.data import png_chunks


def png():
  noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(noise).save(file, 'PNG')
  return file.getvalue()


def test_a_whole_png_is_whole():
  assert png_chunks.is_whole(png())


@pytest.mark.parametrize('kept', [0, 4, 8, 20, 40, 0.5, -4, -1])
def test_a_png_that_is_cut_off_is_not_whole(kept):
  kept = int(kept * len(png())) if isinstance(kept, float) else kept
  assert not png_chunks.is_whole(png()[:kept])


def test_a_png_with_any_other_byte_is_not_whole():
  data = png()
  for at in range(0, len(data), 7):
    changed = bytearray(data)
    changed[at] ^= 1
    assert not png_chunks.is_whole(bytes(changed)), at
