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
EXTRAS = ('tensorflow', 'dev', 'formats', 'science')
# {extra for an accelerator: platforms that JAX has it for}. Each is resolved
# alone, because cuda and cuda12 exclude each other.
ACCELERATORS = {
  'cuda': ('x86_64-manylinux_2_28', 'aarch64-manylinux_2_28'),
  'cuda12': ('x86_64-manylinux_2_28', 'aarch64-manylinux_2_28'),
  'tpu': ('x86_64-manylinux_2_31',),  # libtpu has no wheel for 2.28
}
# {constraints: the Pythons that they are for}.
CONSTRAINTS = {
  'constraints.txt': PYTHONS[:-1],
  'constraints-newest.txt': PYTHONS[1:-1],
}


def main() -> None:
  """Prints two tables as Markdown, and the reasons of what does not resolve."""
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
  print('\n'.join(accelerators()))


def accelerators() -> list[str]:
  """Returns a table of the extras for GPUs and TPUs, and what fails there.

  Each resolves with the pins, and none of the accelerator's own packages may
  lack a pin, because its newest version would then be installed.
  """
  rows, reasons = ['| extra | constraints | platform | Pythons |'], []
  rows.append('|---' * 4 + '|')
  for extra, platforms in ACCELERATORS.items():
    for file, pythons in CONSTRAINTS.items():
      for platform in platforms:
        fine = []
        for python in pythons:
          reason = resolve(platform, python, extras=(extra,), constraints=file)
          if reason:
            reasons.append(f'- {extra}, {platform}, {python}: {reason}')
          else:
            fine.append(python)
        rows.append(f'| {extra} | {file} | {platform} | {", ".join(fine)} |')
  return [*rows, '', *reasons]


def resolve(
  platform: str,
  python: str,
  *,
  extras: tuple[str, ...] = EXTRAS,
  constraints: str = 'constraints.txt',
) -> str | None:
  """Returns why the pins have no wheels there, or None if they do.

  Args:
    platform: one of uv's names, such as those in `PLATFORMS`.
    python: version of Python.
    extras: extras of pyproject.toml.
    constraints: the file with the pins.
  """
  command = ['uv', 'pip', 'compile', '--quiet', 'pyproject.toml']
  command += [f'--constraint={constraints}', '--only-binary=:all:']
  command += ['--no-header', '--no-annotate']
  command += [f'--no-binary={name}' for name in SOURCES]
  command += [f'--extra={name}' for name in extras]
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
    return unpinned(done.stdout, (ROOT / constraints).read_text('utf-8'))
  missing = re.search(
    r'Because ([\w-]+)(?:\{[^}]*\})?==(\S+) has no (?:usable )?wheels',
    done.stderr,
  )
  if missing:
    return f'{missing[1]} {missing[2]} has no wheel'
  return done.stderr.strip()


def unpinned(resolved: str, constraints: str) -> str | None:
  """Returns which packages of JAX and its accelerators have no pin, or None.

  Args:
    resolved: output of `uv pip compile`.
    constraints: text of the file with the pins.
  """

  def names(text):
    found = re.findall(r'^((?:jax|nvidia|libtpu)[\w.-]*)==', text, re.M)
    return {re.sub(r'[-_.]+', '-', name).lower() for name in found}

  left = sorted(names(resolved) - names(constraints))
  return f'no pin for {", ".join(left)}' if left else None


if __name__ == '__main__':
  main()
