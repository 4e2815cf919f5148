"""Tells which commit of the program runs, for logs and records."""

import functools
import importlib.metadata
import json
import os
import pathlib
import subprocess

# For images, whose files come without the history.
VARIABLE = 'CDM_COMMIT'
_ROOT = pathlib.Path(__file__).resolve().parents[2]


@functools.cache
def commit() -> str | None:
  """Returns the commit that this program is of, or None if nothing tells it.

  `VARIABLE` comes first, then git, if the package is part of a checkout, then
  what pip has noted of an installation from a repository (PEP 610). A '+' at
  the end means that files differ from the commit.
  """
  given = ' '.join(os.environ.get(VARIABLE, '').split())
  return given or _of_checkout(_ROOT) or _of_installation()


def _of_checkout(root: pathlib.Path) -> str | None:
  # Not a repository around it, such as one that a virtual environment is in.
  if not (root / '.git').exists():
    return None
  command = ['git', '-c', 'safe.directory=*', '-C', str(root), 'describe']
  command += ['--always', '--abbrev=40', '--exclude=*', '--dirty=+']
  try:
    done = subprocess.run(
      command,
      capture_output=True,
      text=True,
      timeout=30,
      check=False,
      encoding='utf-8',
    )
  except (OSError, subprocess.TimeoutExpired):  # There is no git.
    return None
  return done.stdout.strip() or None


def _of_installation() -> str | None:
  try:
    text = importlib.metadata.distribution('cdm').read_text('direct_url.json')
    return json.loads(text or '{}').get('vcs_info', {}).get('commit_id')
  except (importlib.metadata.PackageNotFoundError, ValueError):
    return None
