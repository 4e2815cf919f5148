"""Asks for which machines the pinned packages exist, and prints a table.

  pip install uv
  python benchmarks/resolve_wheels.py

The constraints are resolved with wheels only, for every platform and Python
that cdm means to run on; nothing is installed. It needs the package index.
"""

import datetime
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLATFORMS = {
  'Linux x86-64, glibc 2.28': 'x86_64-manylinux_2_28',
  'Linux aarch64, glibc 2.28': 'aarch64-manylinux_2_28',
  'macOS 14, Apple silicon': 'aarch64-apple-darwin',
  'macOS, Intel': 'x86_64-apple-darwin',
  'Windows x86-64': 'x86_64-pc-windows-msvc',
}
PYTHONS = ('3.11', '3.12', '3.13', '3.14', '3.15')
# They have no wheel anywhere, and their sources are plain Python.
SOURCES = ('promise',)
EXTRAS = ('tensorflow', 'dev')


def main() -> None:
  """Prints the table as Markdown, and the reasons of what does not resolve."""
  rows, reasons = [], []
  for title, platform in PLATFORMS.items():
    cells = []
    for python in PYTHONS:
      reason = resolve(platform, python)
      cells.append('no' if reason else 'yes')
      if reason:
        reasons.append(f'- {title}, Python {python}: {reason}')
    rows.append(f'| {title} | ' + ' | '.join(cells) + ' |')
  print(f'Resolved on {datetime.date.today()}:\n')
  print('| | ' + ' | '.join(PYTHONS) + ' |')
  print('|---' * (len(PYTHONS) + 1) + '|')
  print('\n'.join([*rows, '', *reasons]))


def resolve(platform: str, python: str) -> str | None:
  """Returns why the pins have no wheels there, or None if they do."""
  command = ['uv', 'pip', 'compile', '--quiet', 'pyproject.toml']
  command += ['--constraint=constraints.txt', '--only-binary=:all:']
  command += [f'--no-binary={name}' for name in SOURCES]
  command += [f'--extra={name}' for name in EXTRAS]
  command += [f'--python-platform={platform}', f'--python-version={python}']
  done = subprocess.run(
    command,
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
    encoding='utf-8',
  )
  if not done.returncode:
    return None
  missing = re.search(
    r'Because ([\w-]+)(?:\{[^}]*\})?==(\S+) has no (?:usable )?wheels',
    done.stderr,
  )
  if missing:
    return f'{missing[1]} {missing[2]} has no wheel'
  return done.stderr.strip()


if __name__ == '__main__':
  main()
