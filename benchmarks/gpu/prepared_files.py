"""Lists and checks the files that are carried to a machine with a GPU.

A prepared folder holds wheels/, data/, weights/ and manifest.json, which names
every file with its size and SHA-256. It needs no package beside Python, because
it is read before the wheels are installed.
"""

import hashlib
import json
import pathlib

MANIFEST = 'manifest.json'
FOLDERS = ('wheels', 'data', 'weights')


def sha256(path):
  """Returns the SHA-256 of a file, 64 digits."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def describe(folder):
  """Returns [{'path', 'bytes', 'sha256'}] of the files of a prepared folder."""
  folder = pathlib.Path(folder)
  return [
    {
      'path': path.relative_to(folder).as_posix(),
      'bytes': path.stat().st_size,
      'sha256': sha256(path),
    }
    for name in FOLDERS
    for path in sorted((folder / name).rglob('*'))
    if path.is_file()
  ]


def read(folder):
  """Returns the manifest of a prepared folder, whose files are all whole.

  Raises:
    SystemExit: the manifest or a file is missing, or a file is not what it was;
      the message names it.
  """
  folder = pathlib.Path(folder)
  path = folder / MANIFEST
  try:
    manifest = json.loads(path.read_text(encoding='utf-8'))
    files = [(f['path'], f['bytes'], f['sha256']) for f in manifest['files']]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise SystemExit(
      f'{path} cannot be read ({error!r}); make the folder with '
      'benchmarks/gpu/prepare.py.'
    ) from error
  for name, size, digest in files:
    file = folder / name
    if not file.is_file():
      raise SystemExit(f'{file} is missing; prepare and carry it again.')
    if file.stat().st_size != size or sha256(file) != digest:
      raise SystemExit(
        f'{file} is not the file that was prepared ({size} bytes, SHA-256 '
        f'{digest[:12]}...); carry it again.'
      )
  return manifest
