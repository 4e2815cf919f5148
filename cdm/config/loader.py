"""Loads a config file and applies overrides from the command line to it.

`configs/X.py` defines `get_config() -> ConfigDict`. An override is written
`--config.section.key=value`; it must name a key that exists and give a value of
the same type. This module also saves a config as JSON and reads it back.
"""

import difflib
import importlib.util
import json
import os
import pathlib
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from cdm.config import key_hints, optional_keys, override_value
from cdm.config.key_errors import shown
from cdm.data.files import damaged_file, json_file

# In a clone of the repository this folder is beside the package; a wheel does
# not contain it.
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'
SAVED = 'config.json'  # what a run saves its config as


def load(
  path: str | os.PathLike, overrides: Iterable[Sequence[str]] = ()
) -> ConfigDict:
  """Reads a config file and applies overrides.

  Args:
    path: path of a Python file that defines `get_config()`, or of the
      config.json in a work directory.
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
  if path.name == SAVED:
    saved = read_json(path)
    override_all(saved, overrides)
    return saved
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  if spec is None or spec.loader is None:
    raise ValueError(
      f'--config={path} is not a Python file; a config is a file NAME.py that '
      'defines get_config().'
    )
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    make = getattr(module, 'get_config', None)
    config = make() if make else None
  except Exception as error:  # The file is a program and may raise anything.
    raise ValueError(
      f'--config={path}: {_reason(error, path)}. Correct the file.'
    ) from error
  if make is None:
    raise ValueError(f'--config={path}: the file defines no get_config().')
  if not isinstance(config, ConfigDict):
    raise ValueError(
      f'--config={path}: get_config() returns {shown(config)}; it must return '
      'an ml_collections.ConfigDict.'
    )
  if 'task' in config:
    raise ValueError(
      f"--config={path}: the section 'task' is called 'method' now; rename it."
    )
  with config.unlocked():
    optional_keys.state(config, saved=False)
  override_all(config, overrides)
  return config.lock()


def _reason(error: Exception, path: pathlib.Path) -> str:
  """Returns what went wrong in a config file, with the line where it did."""
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename == str(path)
  ]
  text = ' '.join(str(error).split()).rstrip('.')
  if isinstance(error, SyntaxError):  # Its text repeats the file and the line.
    lines, text = [error.lineno], error.msg
  where = f'line {lines[-1]}: ' if lines else ''
  return f'{where}{type(error).__name__}: {text}'


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
  node, walked = config, ''
  for name in sections:
    below = f'{walked}.{name}'.lstrip('.')
    if walked in opened and name not in node:
      with node.unlocked():
        node[name] = ConfigDict()
      opened.add(below)
    node = _child(config, node, walked, name, (dotted, text))
    walked = below
    if not isinstance(node, ConfigDict | dict) and not key_hints.children(node):
      raise ValueError(
        f'config.{walked} is {shown(node)}, not a section, so '
        f'--config.{dotted} cannot be set.'
      )
  if walked in opened and key not in node:
    old = None
  else:
    old = _child(config, node, walked, key, (dotted, text))
  # A list of names, or the name of a file that has them.
  value = override_value.parse(
    text, None if key == 'class_names' else old, dotted
  )
  if not isinstance(node, ConfigDict):
    node[key] = value
    return
  new_kinds = optional_keys.OF_A_NEW_KIND
  with node.ignore_type(), node.unlocked():
    if key == 'kind' and value != old:
      for other in list(node):
        del node[other]
      opened.add(walked)
      for other, default in new_kinds.get((walked, str(value)), {}).items():
        node[other] = default
    node[key] = value


def _child(
  config: ConfigDict,
  node: Any,
  walked: str,
  name: str,
  given: tuple[str, str],
) -> Any:
  """Returns what a section calls `name`.

  Args:
    config: the whole config, in which a near name is looked for.
    node: the section, or a sequence of sections.
    walked: its dotted name, '' for the config.
    name: the name that is looked up.
    given: the whole override, (dotted key, text).

  Raises:
    ValueError: there is no such name; it names the nearest key.
  """
  nodes = optional_keys.in_section(walked) | dict(key_hints.children(node))
  if isinstance(node, list | tuple):
    nodes |= {str(i): s for i, s in enumerate(node)}
  if name in nodes:
    return nodes[name]
  dotted, text = given
  near = key_hints.hint(config, dotted, walked)
  where = f'config.{walked}'.rstrip('.')
  dotted = shown(dotted)[1:-1]  # short, without line breaks
  if near is None:
    raise ValueError(
      f'config.{dotted}: {where} has no {shown(name)}. It has: '
      f'{", ".join(sorted(nodes))}. Set one of them with --{where}.KEY=VALUE.'
    )
  if near.startswith('--'):
    raise ValueError(
      f'config.{dotted}: {where} has no {shown(name)}. Did you mean the option '
      f'{near}={text[:80]}?'
    )
  example = key_hints.EXAMPLES.get(near, 'VALUE')
  raise ValueError(
    f'config.{dotted}: {where} has no {shown(name)}. Did you mean '
    f'config.{near}? Set it with --config.{near}={example}.'
  )


def to_json(config: ConfigDict) -> str:
  """Returns a config as JSON text, which `from_json` turns back into it.

  It lacks `optional_keys.NOT_SAVED`.
  """
  values = plain(config)
  for dotted in optional_keys.NOT_SAVED:
    section, key = dotted.split('.')
    if isinstance(values.get(section), dict):
      values[section].pop(key, None)
  return json.dumps(values, indent=2) + '\n'


def from_json(text: str, path: str | os.PathLike) -> ConfigDict:
  """Returns the locked ConfigDict that `to_json` wrote; lists become tuples.

  Args:
    text: JSON text that `to_json` returned.
    path: where the text was read, for error messages.

  Raises:
    damaged_file.DamagedFile: the text is damaged.
    ValueError: the text comes from an earlier cdm, which had other sections.
  """
  data = text.encode('utf-8', 'surrogateescape')
  remedy = 'Restore a copy, or remove it: every checkpoint has its own.'
  saved = json_file.parse(data, dict[str, Any], name=str(path), remedy=remedy)
  if 'task' in saved:
    raise ValueError(
      f"{path} is from a run of an earlier cdm, whose section 'task' is called "
      "'method' now; train it again in another folder, or use the cdm that "
      'made it.'
    )
  try:
    config = ConfigDict(_tuples(saved))
    optional_keys.state(config, saved=True)
    return config.lock()
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise damaged_file.DamagedFile(  # a key with a dot in it, for example
      f'{path} is damaged: {str(error).rstrip(".")}. {remedy}'
    ) from error


def read_json(path: str | os.PathLike) -> ConfigDict:
  """Reads a file that holds what `to_json` wrote; see `from_json`."""
  text = pathlib.Path(path).read_bytes().decode('utf-8', 'surrogateescape')
  return from_json(text, path)


def changes(
  old: ConfigDict, new: ConfigDict, prefix: str = 'config'
) -> list[str]:
  """Returns the differences of two configs: ['config.a.b: old -> new', ...].

  Keys that no saved config has, `optional_keys.NOT_SAVED`, do not count.

  Args:
    old: one config.
    new: the other config.
    prefix: dotted name of both configs, put before every key.
  """
  lines = []
  for key in sorted({*old, *new}):
    name = f'{prefix}.{key}'
    if name.removeprefix('config.') in optional_keys.NOT_SAVED:
      continue
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
