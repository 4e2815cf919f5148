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
    for key in wanted:
      if saved.get(key) != wanted[key]:
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
  """Returns the indices below `count` whose image some folder lacks."""
  return [
    n
    for n in range(count)
    if not all((folder / file_name(n)).exists() for folder in folders)
  ]


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
