"""What the launcher would do, read as the one who gets it reads it."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / 'launch' / 'launch.py'


def launch(target, *arguments):
  """-> the finished dry run of a target, training configs/smoke.py."""
  words = [sys.executable, LAUNCH, target, '--config=configs/smoke.py']
  return subprocess.run(
    [*words, *arguments, '--dry-run'],
    cwd=ROOT,
    env=dict(os.environ, NO_COLOR='1'),
    capture_output=True,
    text=True,
    timeout=60,
    encoding='utf-8',
  )


def rendered(target, *arguments):
  """-> [text, ...] of the files that a target renders."""
  done = launch(target, *arguments)
  assert done.returncode == 0, done.stderr
  pattern = r"^cat > \S+ <<'END_OF_FILE'\n(.*?)\nEND_OF_FILE$"
  return re.findall(pattern, done.stdout, re.MULTILINE | re.DOTALL)


def tool(folder, name, text):
  """Puts a stand-in for a program into a folder."""
  path = folder / name
  path.write_text(f'#!/bin/bash\n{text}\n', encoding='utf-8')
  path.chmod(0o755)
