"""Loads an experiment: a Python literal, then overrides from the command line.

`configs/X.py` defines `get_config() -> ConfigDict`. An override is written
`--config.section.key=value`, must name a key that exists and keeps its type.
"""

import ast
import difflib
import importlib.util
import json
import pathlib

from ml_collections import ConfigDict

# Beside the package in a clone of the repository; a wheel does not hold it.
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def load(path, overrides=()):
  """Reads a config file and applies overrides.

  Args:
    path: of a Python file that defines `get_config()`.
    overrides: sequence of `(dotted key, text)`.

  Returns:
    A locked ConfigDict.

  Raises:
    ValueError: no such file, no `get_config`, a section of an earlier cdm, an
      unknown key (the nearest one is named) or a value of another type.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'--config={path}: there is no such file. {_hint(path)}')
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
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


def _hint(path):
  """Returns a sentence about where a config that is missing may be."""
  near = difflib.get_close_matches(
    path.stem, [p.stem for p in path.parent.glob('*.py')], n=1, cutoff=0.5
  )
  if near:
    return f'Did you mean {path.with_name(near[0] + ".py")}?'
  own = CONFIGS / path.name
  if own.is_file():
    return f'cdm has {own}; give this path.'
  if CONFIGS.is_dir():
    return f"cdm's own configs are in {CONFIGS}."
  return (
    "cdm's own configs are in the folder configs/ of its repository, which an "
    'installed package does not hold; give the path of a file there.'
  )


def override_all(config, overrides):
  """Applies a sequence of `(dotted key, text)`, as `override` does each."""
  opened = set()
  for key, text in overrides:
    override(config, key, text, opened)


def override(config, dotted, text, opened):
  """Sets `config.a.b` from text, keeping its type.

  Another `kind` of a section is another constructor with other arguments: it
  empties the section, whose new keys are then given one by one and checked
  when it is built.

  A stage of a cascade is named or numbered: `stages.sr.level` or
  `stages.1.level`.

  Args:
    config: ConfigDict, changed in place.
    dotted: 'a.b'.
    text: the value.
    opened: names of the sections whose kind was changed; added to.

  Raises:
    ValueError: an unknown key, or a value of another type.
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


def _child(node, name, walked):
  if isinstance(node, list | tuple):
    named = {str(s.get('name', i)): s for i, s in enumerate(node)}
    named |= {str(i): s for i, s in enumerate(node)}
    node = named
  if name not in node:
    near = difflib.get_close_matches(name, list(node), n=1, cutoff=0.4)
    hint = f' did you mean {walked}.{near[0]}?' if near else ''
    raise ValueError(
      f'{walked} has no {name!r};{hint} It has: {", ".join(sorted(node))}.'
    )
  return node[name]


def _parse(text, old, name):
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
  # 1e4 is a float to Python; as a number of steps it is meant as an integer.
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


def to_json(config):
  """-> text that `from_json` reads back to an equal config."""
  return json.dumps(plain(config), indent=2) + '\n'


def from_json(text, path):
  """Returns the locked ConfigDict that `to_json` wrote; lists become tuples.

  Args:
    text: what `to_json` returned.
    path: where the text comes from, for error messages.

  Raises:
    ValueError: an earlier cdm wrote it, which had other sections.
  """
  saved = json.loads(text)
  if 'task' in saved:
    raise ValueError(
      f"{path} holds a run of an earlier cdm, whose section 'task' is called "
      "'method' now; train it again in another folder, or use the cdm that "
      'made it.'
    )
  return ConfigDict(_tuples(saved)).lock()


def changes(old, new, prefix='config'):
  """-> ['config.a.b: old -> new', ...], every leaf in which two differ."""
  lines = []
  for key in sorted({*old, *new}):
    name = f'{prefix}.{key}'
    a, b = old.get(key, 'absent'), new.get(key, 'absent')
    if isinstance(a, ConfigDict) and isinstance(b, ConfigDict):
      lines += changes(a, b, name)
    elif plain(a) != plain(b):
      lines.append(f'{name}: {plain(a)} -> {plain(b)}')
  return lines


def plain(value):
  """-> dicts, lists and scalars in place of ConfigDicts and tuples."""
  if isinstance(value, ConfigDict):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, dict):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, tuple | list):
    return [plain(v) for v in value]
  return value


def _tuples(value):
  if isinstance(value, dict):
    return {k: _tuples(v) for k, v in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(v) for v in value)
  return value
