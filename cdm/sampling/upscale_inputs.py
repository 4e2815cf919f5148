"""Finds and checks the picture files that `cdm upscale` super-resolves.

An input is a picture file, or a folder that stands for all picture files in it
and below it. All are read before a checkpoint is restored. A file that cannot
be used does not stop the others: it is kept apart, with the reason.
"""

import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.data import image_decoder, image_notes, picture_files, transforms
from cdm.data.files import damaged_file, storage_retry
from cdm.data.printable_name import printable
from cdm.distributed import collectives, exit_codes
from cdm.ops import tiling

MOST_SHOWN = 20  # files that one error names


class Picture(NamedTuple):
  """A picture file that can be super-resolved.

  Attributes:
    path: path of the file.
    target: path of its result.
    num_tiles: number of tiles that it is cut into.
  """

  path: pathlib.Path
  target: pathlib.Path
  num_tiles: int


class Inputs(NamedTuple):
  """The picture files that were given.

  Attributes:
    pictures: those that can be super-resolved.
    refused: the errors of the others.
    tile: side of the stage's low-res input, in pixels.
    max_value: the value of white in files of 16 or more bits; see
      `image_decoder.decode`.
  """

  pictures: list[Picture]
  refused: list[Exception]
  tile: int
  max_value: float | None


def check(
  given: Iterable[str | os.PathLike],
  out: str | os.PathLike,
  *,
  tile: int,
  max_value: float | None = None,
) -> Inputs:
  """Finds the picture files that are given, names their results and reads them.

  Process 0 lists the folders, and every process reads a part of the files. This
  is a collective: every process must call it.

  Args:
    given: picture files and folders.
    out: output folder. The result of a/b/c.jpg is OUT/c.png. The results of a
      folder keep their paths in it; if it is not the only input, they are in a
      subfolder of its name.
    tile, max_value: see `Inputs`.

  Raises:
    ValueError: no file can be used, or the result of a file would overwrite
      the result of another, or an input. The message names them.
  """
  targets = shared_targets(list(map(pathlib.Path, given)), out)
  looked: list[int] = []
  errors: dict[int, Exception] = {}
  for i in collectives.local_indices(len(targets)):
    try:
      looked.append(len(read_and_cut(targets[i][0], tile, max_value)[2]))
    except ValueError as error:
      errors[i] = error
      looked.append(0)
  counts = collectives.in_turn(collectives.gather_objects(looked))
  errors = exchange_errors(errors)
  refused = list(errors.values())
  pictures = [
    Picture(path, target, num_tiles)
    for i, ((path, target), num_tiles) in enumerate(
      zip(targets, counts, strict=True)
    )
    if i not in errors
  ]
  if not pictures:
    raise failure(refused, len(targets), out)
  return Inputs(pictures, refused, tile, max_value)


def shared_targets(
  given: list[pathlib.Path],
  out: str | os.PathLike,
  suffix_of: Callable[[pathlib.Path], str] = lambda path: '.png',
  also: tuple[str, ...] = (),
) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """Returns [(picture file, path of its result), ...], all different.

  Process 0 lists the folders. This is a collective.

  Args:
    given: picture files and folders.
    out: see `check`.
    suffix_of: the suffix of a picture's result.
    also: suffixes of further files that are looked for in folders.

  Raises:
    ValueError: see `check`.
  """
  named = collectives.call_in_first(
    lambda: [
      [os.fspath(path), os.fspath(target)]
      for path, target in _targets(given, out, suffix_of, also)
    ]
  )
  return [(pathlib.Path(path), pathlib.Path(t)) for path, t in named]


def exchange_errors(errors: dict[int, Exception]) -> dict[int, Exception]:
  """Returns the errors of all processes, in the order of their keys.

  A collective: every process must call it.

  Args:
    errors: {number of the file: why it cannot be used} of this process.
  """
  if collectives.process_count() > 1:
    told = [
      [i, str(error), list(exit_codes.classify(error))]
      for i, error in errors.items()
    ]
    errors = {}
    for part in collectives.gather_objects(told):
      for i, text, ending in part:
        error: Any = ValueError(text)
        error.ending = exit_codes.ExitCode(*ending)
        errors[i] = error
  return dict(sorted(errors.items()))


def failure(
  refused: Sequence[Exception], total: int, out: str | os.PathLike
) -> Exception:
  """Returns the error that names all files that could not be used.

  Its exit code is that of the first of them.

  Args:
    refused: their errors; at least one.
    total: number of files that were given.
    out: output folder.
  """
  if total == 1:
    return refused[0]
  lines = [
    f'{error} (exit code {exit_codes.classify(error).code})'
    for error in refused[:MOST_SHOWN]
  ]
  if len(refused) > MOST_SHOWN:
    lines.append(f'and {len(refused) - MOST_SHOWN:,} more.')
  others = total - len(refused)
  rest = f'the other {others:,} are in {printable(out)}' if others else ''
  error: Any = ValueError(
    f'{len(refused):,} of {total:,} pictures were not super-resolved'
    f'{rest and "; "}{rest}:\n  ' + '\n  '.join(lines)
  )
  error.ending = exit_codes.classify(refused[0])
  return error


def joined(errors: Sequence[Exception]) -> Exception:
  """Returns one error that says what several say.

  Its exit code is that of the first of them.

  Args:
    errors: at least one.
  """
  if len(errors) == 1:
    return errors[0]
  error: Any = ValueError('\n'.join(map(str, errors)))
  error.ending = exit_codes.classify(errors[0])
  return error


def read_and_cut(
  path: pathlib.Path, tile: int, max_value: float | None
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
  """Reads a picture file and cuts it into tiles.

  Args:
    path: path of the file.
    tile: S, side of a tile in pixels.
    max_value: see `Inputs`.

  Returns:
    (image uint8 [h, w, 3], tiles uint8 [N, S, S, 3], [(top, left), ...]).

  Raises:
    ValueError: the file is not an image, or too small; the message names it.
  """
  image = read_image(path, max_value)
  try:
    return image, *tiling.cut(image, tile)
  except ValueError as error:
    raise ValueError(f'{printable(path)}: {error}') from None


def read_again(
  inputs: Inputs, picture: Picture
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
  """Returns what `read_and_cut` returns for a picture that `check` has read.

  Raises:
    ValueError: the file is gone, or has another size now.
  """
  cut = read_and_cut(picture.path, inputs.tile, inputs.max_value)
  if len(cut[1]) != picture.num_tiles:
    raise ValueError(
      f'{printable(picture.path)} has another size than when `cdm upscale` '
      'began; start again.'
    )
  return cut


def read_image(
  path: pathlib.Path, max_value: float | None = None
) -> np.ndarray:
  """Returns an image file as uint8 [h, w, 3]; says what is left out of it.

  Args:
    path: the file.
    max_value: see `Inputs`.

  Raises:
    ValueError: there is no such file, or it cannot be used.
    damaged_file.DamagedFile: it is damaged, or not an image.
  """
  check_path(path)
  try:
    decoded = storage_retry.retried(
      lambda: image_decoder.read_file(path, max_value=max_value),
      f'Reading {printable(path)}',
    )
  except transforms.BadImage as error:
    raise reworded(error) from None
  image_notes.say(decoded.notes)
  return decoded.pixels


def check_path(path: pathlib.Path) -> None:
  """Raises ValueError, naming the path, if it is not that of a file."""
  reason = picture_files.why_not_a_file(path)
  if reason is not None:
    if not os.path.lexists(path):
      reason = 'there is no such file'
    raise ValueError(f'{printable(path)}: {reason}.')


def reworded(error: Exception) -> Exception:
  """Returns an error of reading a picture that says what to do."""
  if not isinstance(error, transforms.BadImage):
    return error
  if not error.is_data_error:  # It says itself what to do.
    return damaged_file.reworded(error, f'{error}.')
  return damaged_file.reworded(error, f'{error}. Repair it, or leave it out.')


def _targets(
  given: list[pathlib.Path],
  out: str | os.PathLike,
  suffix_of: Callable[[pathlib.Path], str],
  also: tuple[str, ...],
) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """Returns [(picture file, path of its result), ...], all different."""
  out = pathlib.Path(out)
  files = []
  for path in given:
    if path.is_dir():
      inside = '' if len(given) == 1 else path.resolve().name
      files += [
        (path / name, f'{inside}/{name}') for name in _list(path, out, also)
      ]
    else:
      files.append((path, path.name))
  suffixes = [suffix_of(path) for path, _ in files]
  names = [
    os.path.splitext(name)[0] + suffix
    for (_, name), suffix in zip(files, suffixes, strict=True)
  ]
  # If the pictures a.png and a.jpg would both become a.png, they keep their
  # suffixes.
  of_two = _twice(names)
  full = [
    name + suffix if _key(short) in of_two else short
    for (_, name), short, suffix in zip(files, names, suffixes, strict=True)
  ]
  targets = [out / name.lstrip('/') for name in full]
  _refuse_equals([path for path, _ in files], full, out, names)
  inputs = {path.resolve(): path for path, _ in files}
  for target in targets:
    path = inputs.get(target.resolve())
    if path is not None:
      raise ValueError(
        f'{printable(path)} would be overwritten by its own result or by that '
        'of another picture; give another --out.'
      )
  return [(path, t) for (path, _), t in zip(files, targets, strict=True)]


def _list(folder, out, also) -> list[str]:
  """Returns the picture files of a folder, without those in OUT inside it."""
  listing = picture_files.list_pictures(folder, also=also)
  picture_files.say_left_out(str(folder), listing.left_out_text())
  home, results = folder.resolve(), out.resolve()
  names = listing.files
  if home in results.parents:
    own = f'{results.relative_to(home).as_posix()}/'
    names = [name for name in names if not name.startswith(own)]
  if not names:
    raise ValueError(
      f'{printable(folder)} is a folder without picture files; give pictures, '
      'or the folder that they are in.'
    )
  return list(names)


def _key(name):
  """Returns what two names share on a file system that ignores case."""
  return unicodedata.normalize('NFC', name).casefold()


def _twice(names) -> set[str]:
  """Returns the keys that several names have."""
  seen, twice = set(), set()
  for key in map(_key, names):
    (twice if key in seen else seen).add(key)
  return twice


def _refuse_equals(paths, full, out, names):
  first = {}
  for path, name, short in zip(paths, full, names, strict=True):
    key = _key(name)
    if key in first:
      target = out / short.lstrip('/')
      raise ValueError(
        f'{printable(first[key])} and {printable(path)} would both become '
        f'{printable(target)}; rename one, or give the folder around them.'
      )
    first[key] = path
