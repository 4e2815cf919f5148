"""Finds the pictures, arrays and videos that are enlarged; names results."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cdm.data.arrays import array_kinds
from cdm.data.photographs import header, output_kinds
from cdm.data.printable_name import printable
from cdm.data.transforms import BadImage
from cdm.data.videos import video_kinds
from cdm.distributed import collectives
from cdm.reporting import output_files
from cdm.sampling import upscale_inputs


class Picture(NamedTuple):
  """A picture file that can be enlarged.

  Attributes:
    path: path of the file.
    target: path of its result.
    header: its kind and size.
  """

  path: pathlib.Path
  target: pathlib.Path
  header: header.Header


class ArrayInput(NamedTuple):
  """An array file.

  Attributes:
    path: path of the file.
    target: path of its result.
    kind: see `array_kinds.kind_of`.
  """

  path: pathlib.Path
  target: pathlib.Path
  kind: str


class VideoInput(NamedTuple):
  """A video file.

  Attributes:
    path: path of the file.
    target: path of its result.
  """

  path: pathlib.Path
  target: pathlib.Path


class Inputs(NamedTuple):
  """The files that were given.

  Attributes:
    pictures: those that can be enlarged.
    refused: the errors of the others.
    folder: the output folder; None if the results lie elsewhere.
    max_value: the value of white in files of 16 or more bits; see
      `image_decoder.decode`.
    arrays: the files that are arrays of measured values, not pictures.
    videos: the files that are videos.
  """

  pictures: list[Picture]
  refused: list[Exception]
  folder: pathlib.Path | None
  max_value: float | None
  arrays: Sequence[ArrayInput] = ()
  videos: Sequence[VideoInput] = ()


def check(
  given: Iterable[str | os.PathLike],
  out: str | os.PathLike | None,
  *,
  scale: float | None,
  suffix: str | None = None,
  max_value: float | None = None,
  every_tiff: bool = False,
) -> Inputs:
  """Finds the pictures that are given, and names their results; a collective.

  Args:
    given: picture files and folders.
    out: output folder, see `upscale_inputs.shared_targets`; or the file that
      the only picture becomes, if it has the suffix of a picture; or None to
      write NAME_x4.jpg beside NAME.jpg.
    scale: times as long as its input a result is, for such names; None names
      them NAME_enlarged.
    suffix: of all results, such as '.png'; None keeps the kind of each picture
      that can be written, and makes PNG of the others.
    max_value: see `Inputs`.
    every_tiff: see `array_kinds.kind_of`.

  Raises:
    ValueError: no file can be used, or two have one result. The message names
      them.
  """
  given, folder = list(map(pathlib.Path, given)), None
  suffix_of = _suffix_of(suffix, every_tiff)
  if out is None:
    named = _beside(given, suffix_of, scale)
  elif is_file(pathlib.Path(out)):
    if len(given) != 1 or given[0].is_dir():
      raise ValueError(
        f'--out={printable(out)} is one picture, and more than one may be '
        'enlarged; give a folder.'
      )
    named = [(given[0], pathlib.Path(out))]
    if named[0][0].resolve() == named[0][1].resolve():
      raise ValueError(
        f'{printable(out)} would be overwritten by its own result; give '
        'another --out.'
      )
  else:
    folder = pathlib.Path(out)
    output_files.check_folder_name(folder)
    named = upscale_inputs.shared_targets(
      given, folder, suffix_of, (*array_kinds.SUFFIXES, *video_kinds.SUFFIXES)
    )
  named, videos = _without_videos(named)
  named, arrays = _without_arrays(named, every_tiff)
  found, errors = {}, {}
  for i in collectives.local_indices(len(named)):
    try:
      upscale_inputs.check_path(named[i][0])
      found[i] = list(header.look(named[i][0]))
    except (ValueError, BadImage) as error:
      errors[i] = upscale_inputs.reworded(error)
  errors = upscale_inputs.exchange_errors(errors)
  headers = {}
  for part in collectives.gather_objects([[i, h] for i, h in found.items()]):
    headers |= {i: header.Header(*h) for i, h in part}
  pictures = [
    Picture(path, target, headers[i])
    for i, (path, target) in enumerate(named)
    if i not in errors
  ]
  refused = list(errors.values())
  if not pictures and not arrays and not videos:
    raise upscale_inputs.failure(refused, len(named), out or '.')
  return Inputs(pictures, refused, folder, max_value, arrays, videos)


def _without_videos(named):
  """Returns (the other files and their results, the videos)."""
  others, videos = [], []
  for path, target in named:
    if video_kinds.kind_of(path) is None:
      others.append((path, target))
    else:
      video_kinds.by_suffix(target)
      videos.append(VideoInput(path, target))
  return others, videos


def _without_arrays(named, every_tiff):
  """Returns (the pictures among files and their results, the arrays)."""
  pictures, arrays = [], []
  for path, target in named:
    kind = array_kinds.kind_of(path, every_tiff=every_tiff)
    if kind is None:
      pictures.append((path, target))
    else:
      array_kinds.check_suffix(target, kind)
      arrays.append(ArrayInput(path, target, kind))
  return pictures, arrays


def is_file(out: pathlib.Path) -> bool:
  """Returns whether an output path is that of a file, not of a folder."""
  suffixes = {suffix for kind in output_kinds.KINDS for suffix in kind.suffixes}
  known = (
    out.suffix.lower() in suffixes
    or array_kinds.is_name(out)
    or video_kinds.is_name(out)
  )
  return known and not out.is_dir()


def _beside(given, suffix_of, scale):
  """Returns [(picture, NAME_x4.SUFFIX beside it), ...]."""
  named = []
  for path in given:
    if path.is_dir():
      raise ValueError(
        f'{printable(path)} is a folder; give --out=DIR, where the results of '
        'its pictures go, or single pictures.'
      )
    end = 'enlarged' if scale is None else f'x{scale:g}'
    stem = array_kinds.stem_of(path)
    named.append((path, path.with_name(f'{stem}_{end}{suffix_of(path)}')))
  targets = [target for _, target in named]
  for path, target in named:
    if targets.count(target) > 1 or target in given:
      raise ValueError(
        f'{printable(path)} would become {printable(target)}, which another '
        'picture is or becomes; give --out=DIR.'
      )
  return named


def _suffix_of(suffix, every_tiff):
  """Returns a function from the path of a picture to the suffix of its result.

  A file that cannot be read is refused later.
  """

  def of(path):
    array = array_kinds.kind_of(path, every_tiff=every_tiff)
    if array is not None:
      return array_kinds.suffix_of(path, array)
    video = video_kinds.kind_of(path)
    if video is not None:
      return video_kinds.suffix_of(path, video)
    if suffix is not None:
      return suffix
    try:
      kind = header.kind_of(path)
    except (BadImage, OSError):
      return path.suffix
    # A GIF may be transparent, and becomes a PNG, which can be so too.
    given = output_kinds.default(kind, bits=8, has_alpha=False)
    own = path.suffix
    return own if own.lower() in given.suffixes else given.suffixes[0]

  return of
