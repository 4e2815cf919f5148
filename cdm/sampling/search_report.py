"""Names the images that a search did not find, by the files that it wrote.

A search of a generator's latents returns its best image, whether or not that
has the pixels of the low-res image. The files are read again, so that the files
of an earlier run that was interrupted are reported too.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np

from cdm.data.printable_name import printable
from cdm.distributed import collectives
from cdm.sampling.upscaler import Upscaler

MOST_SHOWN = 20  # names in a report


def report(
  upscaler: Upscaler,
  names: Sequence[object],
  read_tiles: Callable[[int], tuple[np.ndarray, np.ndarray]],
) -> None:
  """Warns, in one sentence, of the images that were not found.

  A collective: every process must call it.

  Args:
    upscaler: what drew the images. Nothing is said, and no file is read, if it
      does not search.
    names: names of the images.
    read_tiles: `(number of an image) -> (low-res tiles uint8 [n, h, w, 3], the
      same parts of the image uint8 [n, H, W, 3])`.
  """
  if upscaler.is_found is None:
    return
  own = [
    i
    for i in collectives.local_indices(len(names))
    if not _is_found(upscaler.is_found, *read_tiles(i))
  ]
  say(own, names)


def say(own: Sequence[int], names: Sequence[object]) -> None:
  """Warns of the images that no process has found; a collective.

  Args:
    own: numbers of the images that this process did not find.
    names: names of all images.
  """
  missed = sorted(sum(collectives.gather_objects(list(own)), []))
  if missed and collectives.is_first():
    shown = ', '.join(printable(names[i]) for i in missed[:MOST_SHOWN])
    more = len(missed) - MOST_SHOWN
    print(
      'warning: no image with the pixels of the low-res image, to '
      f'method.search.eps, was found for {len(missed)} of {len(names)} images, '
      f'of which the nearest ones were kept: {shown}'
      f'{f" and {more} more" if more > 0 else ""}; more starts may find some, '
      'with --config.method.search.restarts=4.',
      file=sys.stderr,
    )


def _is_found(is_found, lowres, tiles):
  # One tile after the other, so that one shape is compiled.
  return all(
    is_found(tiles[n : n + 1], lowres[n : n + 1])[0] for n in range(len(tiles))
  )


def parts(
  image: np.ndarray, places: Sequence[tuple[int, int]], side: int, factor: int
) -> np.ndarray:
  """Cuts the parts of an image that belong to low-res tiles.

  Args:
    image: uint8 [H, W, 3].
    places: (top, left) of each tile, in low-res pixels.
    side: side of a tile, in low-res pixels.
    factor: the magnification.

  Returns:
    uint8 [n, side * factor, side * factor, 3].
  """
  size = side * factor
  return np.stack(
    [
      image[top * factor :, left * factor :][:size, :size]
      for top, left in places
    ]
  )
