"""Words the commands that messages tell a user to run, for this interpreter.

A bare `pip` or `python` may belong to another environment than the one that
runs cdm, or may not exist, so the commands name the interpreter by its path.

It is in `cdm.data`, which imports nothing of cdm, so that all packages whose
messages name commands may know it.
"""

import importlib.util
import os
import shlex
import subprocess
import sys


def run(*words: str) -> str:
  """Returns a command line of this interpreter, quoted for the shell."""
  return _line(_interpreter(), *words)


def install(*words: str) -> str:
  """Returns the command that installs packages for this interpreter.

  An environment that was made without pip, as uv makes them, is installed into
  by uv.

  Args:
    *words: requirements and options, as pip and uv take them.
  """
  if importlib.util.find_spec('pip') is not None:
    return run('-m', 'pip', 'install', *words)
  return _line('uv', 'pip', 'install', '--python', _interpreter(), *words)


def _interpreter():
  # A program that embeds Python may know no path of an interpreter.
  return sys.executable or 'python3'


def _line(*words):
  return (
    subprocess.list2cmdline(words) if os.name == 'nt' else shlex.join(words)
  )
