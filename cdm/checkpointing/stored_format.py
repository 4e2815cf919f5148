"""Tells whether a checkpoint has the format that this program reads.

A newer program may continue a run of an older one, whatever the commits, unless
it stores something in another way. Then `FORMAT` changes, and a checkpoint of
the other format is refused instead of being misread or set aside as damaged.
"""

import contextlib
import importlib.metadata
from typing import Any

from etils import epath

from cdm.checkpointing import single_files, verification
from cdm.data.files import damaged_file
from cdm.distributed import source_commit

# 1: the parts that the docstring of `writer` lists. Raise the number when a
# program of the commit before could not read what is written, or would read it
# in another sense.
FORMAT = 1


class OtherFormat(ValueError):
  """The checkpoint is undamaged, but of another format than this program's."""


def made_by() -> dict[str, Any]:
  """Returns the format of a checkpoint and the program that writes it."""
  packages = ('cdm', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint')
  versions = {}
  for package in packages:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = 'not installed'  # cdm runs from a source checkout
  return {
    'format': FORMAT,
    'commit': source_commit.commit(),
    'versions': versions,
  }


def check(path: epath.Path) -> None:
  """Raises OtherFormat if a checkpoint has another format.

  Args:
    path: path of the checkpoint. If it is damaged, nothing is raised here.
  """
  saved = _saved(path)
  found = saved.get('format', 1)  # Before there was a number, it was 1.
  if found != FORMAT:
    commit = saved.get('commit')
    by = f'commit {commit}' if commit else 'an unknown commit'
    raise OtherFormat(
      f'{path} has format {found} and was written by cdm of {by}; this program '
      f'reads format {FORMAT}. Use that commit, or another --workdir.'
    )


def _saved(path: epath.Path) -> dict[str, Any]:
  """Returns what `writer` has noted in a checkpoint, {} if it is damaged."""
  with contextlib.suppress(FileNotFoundError, damaged_file.DamagedFile):
    metadata = single_files.read_json(
      path / verification.METADATA, dict[str, Any], remedy=''
    )
    noted = metadata.get('custom_metadata')
    if isinstance(noted, dict):
      return noted
  return {}
