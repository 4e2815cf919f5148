"""Loads a config file and applies overrides from the command line to it.

`configs/X.py` defines `get_config() -> ConfigDict`. An override is written
`--config.section.key=value`; it must name a key that exists and give a value of
the same type. This module also saves a config as JSON and reads it back.
"""

import ast
import difflib
import importlib.util
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

# In a clone of the repository this folder is beside the package; a wheel does
# not contain it.
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def load(
  path: str | os.PathLike, overrides: Iterable[Sequence[str]] = ()
) -> ConfigDict:
  """Reads a config file and applies overrides.

  Args:
    path: path of a Python file that defines `get_config()`.
    overrides: pairs `(dotted key, text)`, see `override`.

  Returns:
    A locked ConfigDict.

  Raises:
    ValueError: the file is missing, is not Python, defines no `get_config` or
      has a section of an earlier cdm; or an override has an unknown key (the
      message names the nearest one) or a value of another type.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'--config={path}: there is no such file. {_hint(path)}')
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  if spec is None or spec.loader is None:
    raise ValueError(
      f'--config={path} is not a Python file; a config is a file NAME.py that '
      'defines get_config().'
    )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise ValueError(f'--config={path}: the file defines no get_config().')
  config = module.get_config()
  if 'task' in config:
    raise ValueError(
      f"--config={path}: the section 'task' is called 'method' now; rename it."
    )
  override_all(config, overrides)
  return config.lock()


def _hint(path: pathlib.Path) -> str:
  """Returns a sentence that says where a missing config may be found."""
  near = difflib.get_close_matches(
    path.stem, [p.stem for p in path.parent.glob('*.py')], n=1, cutoff=0.5
  )
  if near:
    return f'Did you mean {path.with_name(near[0] + ".py")}?'
  own = CONFIGS / path.name
  if own.is_file():
    return f'cdm has {own}; give that path.'
  if CONFIGS.is_dir():
    return f"cdm's own configs are in {CONFIGS}."
  return (
    "cdm's own configs are in the folder configs/ of its repository, which an "
    'installed package does not hold; give the path of a file there.'
  )


def override_all(
  config: ConfigDict, overrides: Iterable[Sequence[str]]
) -> None:
  """Applies pairs `(dotted key, text)` in their order, see `override`."""
  opened = set()
  for key, text in overrides:
    override(config, key, text, opened)


def override(
  config: ConfigDict, dotted: str, text: str, opened: set[str]
) -> None:
  """Sets the key `a.b` of a config from text, keeping the type of its value.

  A new `kind` selects another constructor, which takes other arguments. It
  therefore empties its section; later overrides then set the new keys one by
  one, and they are checked when the section is built.

  A stage of a cascade is addressed by its name or its index: `stages.sr.level`
  or `stages.1.level`.

  Args:
    config: ConfigDict, changed in place.
    dotted: the key, e.g. 'a.b'.
    text: the value as text.
    opened: dotted names of the sections whose kind was changed, which accept
      unknown keys; extended in place.

  Raises:
    ValueError: the key is unknown, or the value has another type.
  """
  *sections, key = dotted.split('.')
  node, walked = config, 'config'
  for name in sections:
    if walked in opened and name not in node:
      with node.unlocked():
        node[name] = ConfigDict()
      opened.add(f'{walked}.{name}')
    node = _child(node, name, walked)
    walked = f'{walked}.{name}'
    if not isinstance(node, ConfigDict | dict | list | tuple):
      raise ValueError(
        f'--config.{dotted}: {walked} is {node!r}, not a section.'
      )
  if walked in opened and key not in node:
    old = None
  else:
    old = _child(node, key, walked)
  value = _parse(text, old, f'{walked}.{key}')
  if not isinstance(node, ConfigDict):
    node[key] = value
    return
  with node.ignore_type(), node.unlocked():
    if key == 'kind' and value != old:
      for other in list(node):
        del node[other]
      opened.add(walked)
    node[key] = value


def _child(node: Any, name: str, walked: str) -> Any:
  if isinstance(node, list | tuple):
    children = {str(s.get('name', i)): s for i, s in enumerate(node)}
    children |= {str(i): s for i, s in enumerate(node)}
    node = children
  if name not in node:
    near = difflib.get_close_matches(name, list(node), n=1, cutoff=0.4)
    hint = f' Did you mean {walked}.{near[0]}?' if near else ''
    raise ValueError(
      f'{walked} has no {name!r}.{hint} It has: {", ".join(sorted(node))}.'
    )
  return node[name]


def _parse(text: str, old: Any, name: str) -> Any:
  """Returns the value that `text` stands for, of the type of `old`."""
  if isinstance(old, ConfigDict):
    raise ValueError(
      f'{name} is a section; set one of its keys: {", ".join(sorted(old))}.'
    )
  if isinstance(old, str):
    return text
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    if old is None:
      return text
    value = text
  if isinstance(old, bool):
    lowered = str(text).lower()
    if lowered not in ('true', 'false'):
      raise ValueError(
        f'{name} is {old!r}; it takes True or False, not {text!r}.'
      )
    return lowered == 'true'
  if old is None or value is None:
    return value
  if isinstance(old, float) and isinstance(value, int):
    return float(value)
  # Python reads 1e4 as a float, but for a number of steps it means an integer.
  if isinstance(old, int) and isinstance(value, float) and value.is_integer():
    return int(value)
  if isinstance(old, tuple | list) and isinstance(value, int | float):
    value = (value,)
  if isinstance(old, tuple) and isinstance(value, list | tuple):
    return tuple(value)
  if type(value) is not type(old) or isinstance(value, bool):
    raise ValueError(
      f'{name} is {old!r}, of type {type(old).__name__}; {text!r} is of type '
      f'{type(value).__name__}.'
    )
  return value


def to_json(config: ConfigDict) -> str:
  """Returns a config as JSON text, which `from_json` turns back into it."""
  return json.dumps(plain(config), indent=2) + '\n'


def from_json(text: str, path: str | os.PathLike) -> ConfigDict:
  """Returns the locked ConfigDict that `to_json` wrote; lists become tuples.

  Args:
    text: JSON text that `to_json` returned.
    path: where the text was read, for error messages.

  Raises:
    ValueError: the text comes from an earlier cdm, which had other sections.
  """
  saved = json.loads(text)
  if 'task' in saved:
    raise ValueError(
      f"{path} is from a run of an earlier cdm, whose section 'task' is called "
      "'method' now; train it again in another folder, or use the cdm that "
      'made it.'
    )
  return ConfigDict(_tuples(saved)).lock()


def changes(
  old: ConfigDict, new: ConfigDict, prefix: str = 'config'
) -> list[str]:
  """Returns the differences of two configs: ['config.a.b: old -> new', ...].

  Args:
    old: one config.
    new: the other config.
    prefix: dotted name of both configs, put before every key.
  """
  lines = []
  for key in sorted({*old, *new}):
    name = f'{prefix}.{key}'
    a, b = old.get(key, 'absent'), new.get(key, 'absent')
    if isinstance(a, ConfigDict) and isinstance(b, ConfigDict):
      lines += changes(a, b, name)
    elif plain(a) != plain(b):
      lines.append(f'{name}: {plain(a)} -> {plain(b)}')
  return lines


def plain(value: Any) -> Any:
  """Converts ConfigDicts to dicts and tuples to lists, as JSON has them."""
  if isinstance(value, ConfigDict):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, dict):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, tuple | list):
    return [plain(v) for v in value]
  return value


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {k: _tuples(v) for k, v in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(v) for v in value)
  return value
