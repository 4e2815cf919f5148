"""Picture files: written whole or not at all, read back exactly."""

import contextlib
import io
import os
import pathlib
import zipfile

import numpy as np
from PIL import Image, ImageDraw, ImageFont


@contextlib.contextmanager
def completing(path):
  """Context: gives a path to write to, which becomes `path` when all is well.

  If it is not (a full disk, Ctrl-C), nothing is left behind.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'.{path.name}.partial')
  try:
    yield partial
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def write_png(path, image):
  """Writes uint8 [H, W, 3] as PNG; the file appears only when complete."""
  with completing(path) as partial:
    Image.fromarray(np.asarray(image)).save(partial, format='PNG')


def read_png(path):
  """-> uint8 [H, W, 3]."""
  with Image.open(path) as image:
    return np.asarray(image.convert('RGB'))


def png_bytes(image):
  """-> the PNG file of uint8 [H, W, 3], as bytes."""
  buffer = io.BytesIO()
  Image.fromarray(np.asarray(image)).save(buffer, format='PNG')
  return buffer.getvalue()


def write_npz(path, images, *, shape, labels=None):
  """Writes `arr_0` (and `arr_1`) one image at a time, as the ADM evaluator
  reads it; memory stays that of one image.

  Args:
    path: of the .npz file; it appears only when complete.
    images: iterable of uint8 [H, W, 3], as many as shape[0].
    shape: (N, H, W, 3) of `arr_0`.
    labels: int [N] for `arr_1`, or None to leave it out.

  Raises:
    ValueError: the images are not as many, or not as large, as `shape` says.
  """
  name = pathlib.Path(path).name
  header = {
    'descr': np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
    'fortran_order': False,
    'shape': tuple(shape),
  }
  with (
    completing(path) as partial,
    zipfile.ZipFile(partial, 'w', zipfile.ZIP_STORED) as archive,
  ):
    with archive.open('arr_0.npy', 'w', force_zip64=True) as file:
      np.lib.format.write_array_header_1_0(file, header)
      count = 0
      for image in images:
        if image.shape != tuple(shape[1:]) or image.dtype != np.uint8:
          raise ValueError(
            f'Image {count} is {image.dtype} {image.shape}; all images of '
            f'{name} must be uint8 {tuple(shape[1:])}.'
          )
        file.write(np.ascontiguousarray(image).tobytes())
        count += 1
    if count != shape[0]:
      raise ValueError(
        f'{count} images were given for {name}, {shape[0]} expected.'
      )
    if labels is not None:
      with archive.open('arr_1.npy', 'w', force_zip64=True) as file:
        np.lib.format.write_array(file, np.asarray(labels, np.int64))


def magnify(image, size):
  """Nearest-neighbour magnification of uint8 [h, w, 3] to a side `size`."""
  return np.asarray(
    Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST)
  )


# From black over violet and orange to pale yellow.
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def heat(values, top):
  """Colours of a map of numbers, lighter where they are larger.

  Args:
    values: [H, W], at least 0.
    top: number that has the last colour; larger ones too.

  Returns:
    uint8 [H, W, 3].
  """
  place = np.clip(np.asarray(values) / max(top, 1e-12), 0.0, 1.0)
  stops = np.linspace(0.0, 1.0, len(HEAT))
  channels = [
    np.interp(place, stops, channel) for channel in zip(*HEAT, strict=True)
  ]
  return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def sheet(rows, *, names=None, heads=None, scale=1, gap=4):
  """Lays pictures out in labelled rows.

  Args:
    rows: list of rows, each a list of uint8 [S, S, 3] pictures; None leaves a
      gap of half a picture between groups.
    names: label of each row, or None.
    heads: label of each column (None entries are skipped), or None.
    scale: integer magnification of every picture (nearest neighbour).
    gap: pixels between pictures.

  Returns:
    uint8 [height, width, 3], on white.
  """
  side = next(p.shape[0] for row in rows for p in row if p is not None) * scale
  font = ImageFont.load_default(size=max(12, min(16, side // 6)))
  left = gap
  if names is not None:
    left += int(max(font.getlength(str(name)) for name in names)) + 2 * gap
  top = gap + (int(font.size * 1.5) if heads is not None else 0)
  columns = max(len(row) for row in rows)
  steps = np.zeros(columns + 1, int)
  widest = max(rows, key=len)
  for i, picture in enumerate(widest):
    steps[i + 1] = steps[i] + (gap * 3 if picture is None else side + gap)
  width, height = left + steps[-1], top + len(rows) * (side + gap)
  canvas = Image.new('RGB', (int(width), int(height)), 'white')
  draw = ImageDraw.Draw(canvas)
  for i, head in enumerate(heads or ()):
    if head:
      while font.getlength(head) > side and len(head) > 1:
        head = head[:-1]  # rather cut short than written over the next one
      place = (left + steps[i], gap)
      draw.text(place, head, fill='black', font=font)
  for r, row in enumerate(rows):
    y = top + r * (side + gap)
    if names is not None:
      place = (gap, y + side // 2 - font.size // 2)
      draw.text(place, str(names[r]), fill='black', font=font)
    for i, picture in enumerate(row):
      if picture is not None:
        tile = Image.fromarray(magnify(picture, side))
        canvas.paste(tile, (int(left + steps[i]), y))
  return np.asarray(canvas)
