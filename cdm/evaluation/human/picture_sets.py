"""Finds the pictures of each scene in the folders of several methods."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from cdm.data import picture_files
from cdm.data.printable_name import printable


class Scene(NamedTuple):
  """The files of one scene.

  Attributes:
    name: path below the first folder, without its suffix.
    files: {method: path}.
    lowres: path of the low-res picture, or None.
  """

  name: str
  files: dict[str, str]
  lowres: str | None


def match(sets: Mapping[str, str], lowres: str | None = None) -> list[Scene]:
  """Matches the pictures of several folders.

  Files of one name belong together, whatever their suffixes. Where the names of
  two folders have nothing in common, as many files as there are scenes belong
  to them in the order of their names.

  Args:
    sets: {method: folder}, one or more.
    lowres: another folder, or None.

  Returns:
    The scenes, in the order of the names in the first folder.

  Raises:
    ValueError: a folder lacks pictures that another one has.
  """
  listed = {method: _listed(folder) for method, folder in sets.items()}
  first, *_ = sets
  names = list(listed[first])
  found = {
    method: _in_order(names, files, sets[first], sets[method])
    for method, files in listed.items()
  }
  small = (
    _in_order(names, _listed(lowres), sets[first], lowres) if lowres else None
  )
  return [
    Scene(
      name,
      {method: files[i] for method, files in found.items()},
      small[i] if small else None,
    )
    for i, name in enumerate(names)
  ]


def _listed(folder):
  """Returns {name without suffix: path} of the pictures in a folder."""
  found = {}
  for file in picture_files.list_pictures(folder).files:
    name = os.path.splitext(file)[0]
    path = os.path.join(folder, file)
    if name in found:
      raise ValueError(
        f'{printable(found[name])} and {printable(path)} have one name, so '
        'that the pictures of other folders could belong to both. Keep one.'
      )
    found[name] = path
  if not found:
    raise ValueError(f'{printable(folder)} holds no picture files.')
  return found


def _in_order(names, files, first, folder):
  """Returns the files of a folder in the order of the scenes."""
  common = set(names) & set(files)
  if not common and len(names) == len(files):
    return list(files.values())
  missing = [name for name in names if name not in files]
  if missing:
    raise ValueError(
      f'{printable(folder)} has no picture {printable(missing[0])!r}, which '
      f'{printable(first)} has ({len(missing):,} of {len(names):,} are '
      'missing). Files of one scene need one name, or both folders the same '
      'number of files, with no name in common.'
    )
  extra = [name for name in files if name not in set(names)]
  if extra:
    raise ValueError(
      f'{printable(first)} has no picture {printable(extra[0])!r}, which '
      f'{printable(folder)} has. Give folders with the same scenes.'
    )
  return [files[name] for name in names]
