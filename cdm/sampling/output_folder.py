"""Writes or checks the manifest of an output folder, and makes room for it.

The manifest is a JSON file with every setting that the folder's contents
depend on. A restart with the same settings continues the folder; a restart
with other settings is refused.
"""

import contextlib
import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Concatenate, ParamSpec

from cdm.data import numbered_names, record_format
from cdm.data.files import atomic_files, json_file
from cdm.data.printable_name import printable
from cdm.distributed import collectives, folder_lock

P = ParamSpec('P')
Folder = str | os.PathLike
# Entries that describe training images.
_LATER = {'prepared', 'data_sets'}


def held_by(
  command: str,
) -> Callable[
  [Callable[Concatenate[Folder, P], None]],
  Callable[Concatenate[Folder, P], None],
]:
  """Decorator: the run holds the function's first argument, a folder.

  Args:
    command: the command that writes into the folder, e.g. 'cdm sample'.
  """

  def decorate(function):
    @functools.wraps(function)
    def held(out, *args, **kwargs):
      with folder_lock.hold(out, command, flag='--out'):
        function(out, *args, **kwargs)

    return held

  return decorate


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

  Manifests of earlier versions lack what describes training images, and their
  folders can be continued.
  """
  if isinstance(saved, dict) and isinstance(wanted, dict):
    known = {k: v for k, v in wanted.items() if k not in _LATER or k in saved}
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
    damaged_file.DamagedFile: the manifest is damaged.
    ValueError: the folder has a manifest with other settings.
  """
  folder = pathlib.Path(folder)
  path = folder / name
  atomic_files.remove_abandoned(folder)
  if path.exists():
    saved = json_file.read(
      path,
      dict[str, Any],
      remedy='Without it nobody knows what the folder holds. Restore the file, '
      'or delete the folder to begin anew.',
    )
    wanted = json.loads(json.dumps(manifest))
    for key in _LATER - saved.keys():
      wanted.pop(key, None)
    for key in wanted:
      if not _agrees(saved.get(key), wanted[key]):
        raise ValueError(refusal(folder, key, saved, wanted))
    return
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps({**manifest, **(notes or {})}, indent=2) + '\n'
  atomic_files.write_text_atomically(path, text)


def make_room(
  folder: str | os.PathLike,
  manifest: Mapping[str, object],
  *,
  name: str,
  writes: Collection[str],
  overwrite: bool | None = None,
) -> None:
  """Refuses or removes other files of the names that a command will write.

  A folder with this manifest is left as it is, for the command to continue it.
  This is a collective: every process must call it.

  Args:
    folder: path of the folder, which may be missing.
    manifest, name: see `claim`.
    writes: names of the files and folders in `folder` that the command writes.
    overwrite: whether files of these names, and numbered images or shards in
      folders of these names, are removed. None is the same as False, for a
      command that has no option --overwrite.

  Raises:
    ValueError: something has one of these names, and `overwrite` is not True. A
      folder with another manifest is not refused here: `claim` says which
      setting differs.
  """
  folder = pathlib.Path(folder)
  taken = [n for n in (name, *writes) if os.path.lexists(folder / n)]
  other = bool(taken) and not _has_manifest(folder / name, manifest)
  if not collectives.broadcast_from_first(other):
    return
  if overwrite:
    # Process 0 goes first: on a shared disk nothing remains for the others.
    for turn in (collectives.is_first(), not collectives.is_first()):
      if turn:
        _remove(folder, (name, *writes))
      collectives.barrier('the room for results')
  elif name not in taken:
    what = printable(folder / taken[0]) if taken else printable(folder)
    raise ValueError(
      f'{what} is not from an earlier start of this command (there is no '
      f'{name} beside it) and would be overwritten; give another --out'
      f'{"" if overwrite is None else ", or --overwrite to replace it"}.'
    )


def _has_manifest(path, manifest):
  """Returns whether a file is this manifest, whatever notes were added."""
  try:
    saved = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return False
  wanted = json.loads(json.dumps(manifest))
  return isinstance(saved, dict) and all(
    saved.get(key) == value for key, value in wanted.items()
  )


def _remove(folder, names):
  """Removes files, and images and shards in folders, of these names."""
  for path in (folder / name for name in names):
    if path.is_dir() and not path.is_symlink():
      found = [file.name for file in path.iterdir()]
      removed = [n for n in found if re.fullmatch(r'\d{6,}\.png', n)]
      for thousand in found:
        if re.fullmatch(r'\d{3,}', thousand):
          _remove_thousand(path / thousand)
      shards = [n for n in found if record_format.is_shard_name(n)]
      if shards and record_format.INDEX in found:
        removed.append(record_format.INDEX)
      for name in (*removed, *shards):
        (path / name).unlink()
      with contextlib.suppress(OSError):  # Other files in it stay.
        path.rmdir()
    elif os.path.lexists(path):
      path.unlink()


def _remove_thousand(folder):
  """Removes the numbered images of a thousand, and their folder if it can."""
  if not folder.is_dir() or folder.is_symlink():
    return
  for file in folder.iterdir():
    n = numbered_names.number(file.name)
    if n is not None and numbered_names.folder_name(n) == folder.name:
      file.unlink()
  with contextlib.suppress(OSError):  # Other files in it stay.
    folder.rmdir()
