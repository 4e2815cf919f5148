"""Writes or checks the manifest of an output folder, and lists missing images.

The manifest is a JSON file with every setting that the folder's contents
depend on. A restart with the same settings continues the folder; a restart
with other settings is refused.
"""

import json
import os
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from cdm.data import png_chunks
from cdm.distributed import collectives
from cdm.reporting import atomic_files


def _other_images(
  folder: pathlib.Path, key: str, saved: dict[str, Any], wanted: dict[str, Any]
) -> str:
  return (
    f'{folder} holds images of another manifest: {key} is {saved.get(key)!r} '
    f'there, {wanted[key]!r} now. Give another --out, or delete that folder to '
    'draw anew.'
  )


def _agrees(saved: Any, wanted: Any) -> bool:
  """Returns whether an entry of a manifest is the wanted one.

  `prepared` describes training images; manifests of earlier versions lack it,
  and their folders can be continued.
  """
  if isinstance(saved, dict) and isinstance(wanted, dict):
    known = {k: v for k, v in wanted.items() if k != 'prepared' or k in saved}
    return saved == known
  if isinstance(saved, list) and isinstance(wanted, list):
    return len(saved) == len(wanted) and all(map(_agrees, saved, wanted))
  return saved == wanted


def claim(
  folder: str | os.PathLike,
  manifest: Mapping[str, object],
  *,
  name: str,
  notes: Mapping[str, object] | None = None,
  refusal: Callable[
    [pathlib.Path, str, dict[str, Any], dict[str, Any]], str
  ] = _other_images,
) -> None:
  """Makes a folder with its manifest, or checks the existing manifest.

  Args:
    folder: path of the folder; made if it is missing.
    manifest: dict of JSON values with all settings that the contents depend on.
    name: file name of the manifest, e.g. 'sampling.json'.
    notes: dict of JSON values that is added to the file and never compared.
    refusal: `(folder, key, saved, wanted) -> message` of the error for a folder
      whose manifest `saved` differs from `wanted` in the value of `key`.

  Raises:
    ValueError: the folder has a manifest with other settings.
  """
  folder = pathlib.Path(folder)
  path = folder / name
  if path.exists():
    saved = json.loads(path.read_text())
    wanted = json.loads(json.dumps(manifest))
    if 'prepared' not in saved:
      wanted.pop('prepared', None)
    for key in wanted:
      if not _agrees(saved.get(key), wanted[key]):
        raise ValueError(refusal(folder, key, saved, wanted))
    return
  folder.mkdir(parents=True, exist_ok=True)
  # Several processes may write this file at once; all write the same text.
  text = json.dumps({**manifest, **(notes or {})}, indent=2) + '\n'
  atomic_files.write_text_atomically(path, text, shared=True)


def file_name(n: int) -> str:
  """Returns the file name of image n, e.g. '000012.png'."""
  return f'{n:06d}.png'


def missing_images(folders: Collection[pathlib.Path], count: int) -> list[int]:
  """Returns the indices below `count` whose image some folder lacks.

  An image that is cut off or damaged, as a crash of the machine leaves it, is
  missing too; it is said, and written again.
  """
  damaged = []

  def is_there(path):
    whole = is_whole(path)
    if not whole and path.exists():
      damaged.append(path)
    return whole

  absent = []
  for n in range(count):
    paths = [folder / file_name(n) for folder in folders]
    if not all([is_there(path) for path in paths]):
      absent.append(n)
  if damaged and collectives.is_first():
    print(
      'Made again, because they are cut off or damaged: '
      f'{len(damaged)} image files; the first: {damaged[0]}.'
    )
  return absent


def is_whole(path: pathlib.Path) -> bool:
  """Returns whether a PNG is there and complete, with sound checksums."""
  try:
    return png_chunks.is_whole(path.read_bytes())
  except OSError:
    return False


def broadcast_missing_images(
  folders: Collection[pathlib.Path], count: int
) -> list[int]:
  """Returns process 0's list of missing images, in every process.

  All processes must draw the same images. This is a collective: every process
  must call it.
  """
  absent = np.zeros(count, bool)
  absent[missing_images(folders, count)] = True
  return np.flatnonzero(collectives.broadcast_from_first(absent)).tolist()
