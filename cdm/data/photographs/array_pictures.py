"""Takes pictures from NumPy and Pillow, and gives results of the same kind.

NumPy    uint8, uint16 or float32 in [0, 1]; [H, W], [H, W, 3], [N, H, W, 3]
Pillow   L, LA, RGB, RGBA and I;16; colour profile, EXIF and resolution stay
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cdm.data.photographs import jpeg_quality
from cdm.data.photographs.photograph import Photograph

MODES = ('L', 'LA', 'RGB', 'RGBA', 'I;16')
DTYPES = (np.uint8, np.uint16, np.float32)
# What a result keeps of `Image.info`; the rest is about the original's file.
_KEPT = ('icc_profile', 'exif', 'dpi')


class Given(NamedTuple):
  """Pictures that were given, and how results are given back.

  Attributes:
    photographs: the pictures, of C = 1 or 3 channels; float32 ones are in
      [-1, 1], as networks take them.
    back: the function from their results [H', W', C] of the same dtype, with
      alpha as a last channel where there is one, to what was given.
  """

  photographs: list[Photograph]
  back: Callable[[list[np.ndarray]], Any]


def taken(given: Any) -> Given:
  """Takes pictures, see above.

  Args:
    given: an array, a picture of Pillow, or a list or tuple of them.

  Raises:
    TypeError: it is something else.
    ValueError: a shape, dtype, mode or value is none of those above.
  """
  if isinstance(given, Image.Image):
    return Given([of_pillow(given)], lambda x: _to_pillow(x[0], given))
  if isinstance(given, np.ndarray):
    return _of_array(given)
  if isinstance(given, list | tuple):
    return _of_several(given)
  raise TypeError(
    f'A picture is a NumPy array or a Pillow image, or a list of them; this is '
    f'of type {type(given).__name__}.'
  )


def _of_several(given: Sequence[Any]) -> Given:
  if not given:
    raise ValueError('The list of pictures is empty; give at least one.')
  parts = [taken(one) for one in given]
  ends = np.cumsum([len(part.photographs) for part in parts]).tolist()

  def back(results):
    starts = [0, *ends]
    return [
      part.back(results[first:end])
      for part, first, end in zip(parts, starts, ends, strict=False)
    ]

  return Given([one for part in parts for one in part.photographs], back)


def of_pillow(image: Image.Image) -> Photograph:
  """Takes one picture of Pillow.

  Args:
    image: a picture of one of `MODES`.

  Raises:
    ValueError: it is of another mode.
  """
  masked = 'transparency' in image.info
  if image.mode not in MODES or masked:
    with_alpha = masked or 'A' in image.mode or 'a' in image.mode
    known = ', '.join(MODES)
    which = f'{image.mode!r} with a transparent colour' * masked
    raise ValueError(
      f'The mode of the picture is {which or repr(image.mode)}, and known are '
      f'{known}; give image.convert({"RGBA" if with_alpha else "RGB"!r}).'
    )
  samples = np.asarray(image)
  _refuse_empty(samples)
  alpha = None
  if image.mode in ('LA', 'RGBA'):
    samples, alpha = samples[..., :-1], samples[..., -1]
  samples = samples if samples.ndim == 3 else samples[..., None]
  tables = getattr(image, 'quantization', None)
  quality = None
  if image.format in ('JPEG', 'MPO') and tables:
    quality = jpeg_quality.of_table(jpeg_quality.zigzag(tables[min(tables)]))
  return Photograph(samples, alpha, 'Pillow', quality=quality)


def _to_pillow(result, like):
  channels = result.shape[-1]
  made = Image.fromarray(result[..., 0] if channels == 1 else result)
  assert made.mode == like.mode
  made.info = {k: v for k, v in like.info.items() if k in _KEPT}
  return made


def _of_array(given):
  """Takes an array of one or several pictures."""
  if given.dtype not in DTYPES:
    raise ValueError(
      f'The pictures are of dtype {given.dtype}; give uint8 or uint16, whose '
      'largest value is white, or float32 from 0 to 1.'
    )
  if given.ndim not in (2, 3, 4) or (given.ndim > 2 and given.shape[-1] != 3):
    raise ValueError(
      f'The shape of the pictures is {given.shape}; give [H, W], [H, W, 3] or '
      '[N, H, W, 3].'
    )
  _refuse_empty(given)
  x = given
  if given.dtype == np.float32:
    if not (given.min() >= 0 and given.max() <= 1):
      raise ValueError(
        f'Values of float32 pictures are 0 (black) to 1 (white), and these are '
        f'{given.min():g} to {given.max():g}; scale them.'
      )
    x = 2 * given - 1
  if given.ndim == 2:
    x = x[..., None]
  several = given.ndim == 4

  def back(results):
    if given.dtype == np.float32:
      results = [(x + 1) / 2 for x in results]
    if several:
      return np.stack(results)
    return results[0][..., 0] if given.ndim == 2 else results[0]

  pictures = [Photograph(one, None, 'NumPy') for one in (x if several else [x])]
  return Given(pictures, back)


def _refuse_empty(samples):
  if not samples.size:
    raise ValueError(
      f'The pictures are empty, of shape {samples.shape}; give at least one '
      'pixel.'
    )
