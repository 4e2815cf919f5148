"""The commit of the checkout, by which an image is told from another."""

import subprocess

from targets.plan import ROOT


def of_checkout(root=ROOT):
  """-> 12 digits of the commit, and -dirty if tracked files differ from it.

  '' where there is no git, or no commit.
  """
  try:
    said = subprocess.run(
      ['git', '-C', str(root), 'describe', '--always', '--dirty']
      + ['--exclude=*', '--abbrev=12'],
      capture_output=True,
      text=True,
      encoding='utf-8',
    )
  except OSError:
    return ''
  return said.stdout.strip() if said.returncode == 0 else ''
