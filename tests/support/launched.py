"""What the launcher would do, planned in this process."""

import importlib.util
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'launch'


def _launcher():
  """-> launch/launch.py as a module; it finds its targets beside itself."""
  sys.path.insert(0, str(FOLDER))
  try:
    spec = importlib.util.spec_from_file_location(
      'launcher_under_test', FOLDER / 'launch.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
  finally:
    sys.path.remove(str(FOLDER))
  return module


_LAUNCHER = _launcher()


def planned(target, *arguments):
  """-> the plan of a dry run of a target that trains configs/smoke.py.

  Raises:
    ValueError: the arguments are refused, with what the user is told.
  """
  config = f'--config={ROOT / "configs" / "smoke.py"}'
  args = _LAUNCHER.parse([target, config, *arguments])
  plan = _LAUNCHER.TARGETS[target].plan
  plan(args)  # As the launcher does, which is refused secrets by this one.
  return plan(_LAUNCHER.without_secrets(args))


def target(name):
  """-> the module of a target."""
  return _LAUNCHER.TARGETS[name]


def rendered(target, *arguments):
  """-> [text, ...] of the files that a target renders."""
  return list(planned(target, *arguments).files.values())


def tool(folder, name, text):
  """Puts a stand-in for a program into a folder."""
  path = folder / name
  path.write_text(f'#!/bin/bash\n{text}\n', encoding='utf-8')
  path.chmod(0o755)
