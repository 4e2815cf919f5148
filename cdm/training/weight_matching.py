"""Decides which array of one network a parameter of another starts from.

An array is taken if its name and shape agree. The rules for what differs:

- Another resolution. Names hold the size of their feature map. If both networks
  have the same number of levels, the levels correspond in order, finest to
  finest; otherwise by size.
- Other classes. The row of a class is the row of the class of the same name;
  classes that the source does not know start at the mean of its rows. Rows go
  by their index where a run has no names and the numbers agree. The null row
  stays the null row, or starts at the mean.
- An added input: low-res channels, labels or the level of the low-res input.
  It starts with weight zero, so that the network begins by computing what the
  source computes, whatever the new input is.
- A learned weight of the loss. No network reads it, so it is left out, or
  starts as it does.
- A mean that details are drawn over. The network of the mean, alone, becomes
  the mean of a network that draws details; those start at random.
- Labels that are no longer an input. The null row, or the mean row, is added to
  the last bias of the embedding of the noise, so that the network computes what
  the source computes without a label.

All that still differs is named: it is missing in the source, not used by the
run, or of another shape.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cdm.methods import diffusion_score
from cdm.models import detail_network

Shape = tuple[int, ...]
Arrays = Mapping[str, jax.Array]

LABEL_TABLE = 'label/embedding'
NOISE_BIAS = 'noise/dense2/bias'
CONV_IN = 'conv_in/kernel'
LEVEL = ('lowres_level/dense2/kernel', 'lowres_level/dense2/bias')
_IMAGE_CHANNELS = 3
_SIZE = r'\d+(?:x\d+)?'


class Network(NamedTuple):
  """What is known of a network besides the shapes of its parameters.

  Attributes:
    shapes: {name: shape} of its parameters.
    num_classes: number of classes; None if labels are not an input.
    null_class: whether its table of classes ends in a row for no label.
    class_names: names of labels 0, 1, ...; None if they are not known.
    patch_size: side of the squares of pixels that the network works on.
  """

  shapes: Mapping[str, Shape]
  num_classes: int | None = None
  null_class: bool = False
  class_names: Sequence[str] | None = None
  patch_size: int = 1


class Matching(NamedTuple):
  """What the parameters of a network start from.

  Attributes:
    taken: {name of the parameter: name in the source} of arrays that are taken
      as they are.
    made: {name of the parameter: (names in the source, function)}. The function
      makes the parameter of the source's arrays, {name: array}.
    fresh: parameters of an added input that start at random.
    missing: parameters that the source lacks.
    unused: names in the source that the network lacks.
    differing: {name of the parameter: (shape in the source, its own shape)}.
    notes: a sentence for each rule that was applied.
  """

  taken: dict[str, str]
  made: dict[str, tuple[tuple[str, ...], Callable[[Arrays], jax.Array]]]
  fresh: list[str]
  missing: list[str]
  unused: list[str]
  differing: dict[str, tuple[Shape, Shape]]
  notes: list[str]

  @property
  def agrees(self) -> bool:
    """Whether every array of both networks has been accounted for."""
    return not (self.missing or self.unused or self.differing)


def match(source: Network, target: Network) -> Matching:
  """Matches the parameters of a network with the arrays of another.

  Args:
    source: the network whose arrays are taken.
    target: the network that starts from them.
  """
  have, notes = _renamed(source.shapes, target.shapes)
  found = Matching({}, {}, [], [], [], {}, notes)
  special = (_labels, _lowres_channels, _lowres_level, _loss_weight, _mean)
  handled = {name for rule in special for name in rule(source, target, found)}
  for name, shape in target.shapes.items():
    if name in handled:
      continue
    if name not in have:
      found.missing.append(name)
    elif source.shapes[have[name]] != shape:
      found.differing[name] = (source.shapes[have[name]], shape)
    else:
      found.taken[name] = have[name]
  found.unused.extend(
    old
    for name, old in have.items()
    if name not in target.shapes and name not in handled
  )
  return found


def _renamed(
  source: Mapping[str, Shape], target: Mapping[str, Shape]
) -> tuple[dict[str, str], list[str]]:
  """Returns ({name in the target: name in the source}, notes)."""
  old, new = _sizes(source), _sizes(target)
  if old == new or len(old) != len(new):
    return {name: name for name in source}, []
  sizes = dict(zip(old, new, strict=True))

  def rename(match):
    side, first, second = match.groups()
    return f'{side}_{sizes[first]}' + (f'_to_{sizes[second]}' if second else '')

  pattern = re.compile(rf'^(down|up)_({_SIZE})(?:_to_({_SIZE}))?(?=[_/])')
  names = {pattern.sub(rename, name): name for name in source}
  return names, [
    f'feature maps of {", ".join(old)} become those of {", ".join(new)}'
  ]


def _sizes(names: Mapping[str, Shape]) -> list[str]:
  """Returns the sizes of the feature maps in names, the finest first."""
  matches = (re.match(rf'down_({_SIZE})_block_', name) for name in names)
  found = {match[1] for match in matches if match}
  return sorted(found, key=lambda size: -int(size.split('x')[0]))


def _labels(source: Network, target: Network, found: Matching) -> list[str]:
  """Applies the rules of the table of classes. Returns the names handled."""
  old, new = source.shapes.get(LABEL_TABLE), target.shapes.get(LABEL_TABLE)
  if old is None and new is None:
    return []
  if old is None:
    assert new is not None
    found.made[LABEL_TABLE] = ((), lambda _: jnp.zeros(new))
    found.notes.append('labels are a new input, and start with weight zero')
    return [LABEL_TABLE]
  if new is None:
    return _without_labels(source, target, found)
  rows = _class_rows(source, target)
  if rows is None or old[1] != new[1]:
    return []  # It is treated, and named, as any other array.
  count, classes = source.num_classes or 0, target.num_classes or 0
  if rows == list(range(count)) and old == new:
    return []
  unknown = rows.count(None)
  found.notes.append(
    f'{classes - unknown} of {classes} classes start from the class of their '
    f'name in the source, which has {count}'
    + (f', and {unknown} from the mean of its classes' if unknown else '')
  )

  def make(arrays):
    table = arrays[LABEL_TABLE]
    mean = table[:count].mean(axis=0, keepdims=True)
    index = np.array([-1 if row is None else row for row in rows])
    lines = jnp.where((index < 0)[:, None], mean, table[index])
    if target.null_class:
      null = table[count:] if source.null_class else mean
      lines = jnp.concatenate([lines, null])
    return lines

  found.made[LABEL_TABLE] = ((LABEL_TABLE,), make)
  return [LABEL_TABLE]


def _class_rows(source: Network, target: Network) -> list[int | None] | None:
  """Returns the source's row for each class of the target.

  None for a class that the source does not know; None instead of the list if
  it cannot be told which class is which.
  """
  classes = target.num_classes or 0
  same = list(source.class_names or ()) == list(target.class_names or ())
  if same and source.num_classes == classes:
    return list(range(classes))
  if source.class_names and target.class_names:
    known = list(source.class_names)
    index = {name: known.index(name) for name in known}
    rows = [index.get(name) for name in list(target.class_names)[:classes]]
    return rows + [None] * (classes - len(rows))
  if source.num_classes == classes:
    return list(range(classes))
  return None


def _without_labels(
  source: Network, target: Network, found: Matching
) -> list[str]:
  """Applies the rule for labels that are no longer an input."""
  table, bias = source.shapes[LABEL_TABLE], source.shapes.get(NOISE_BIAS)
  if bias != target.shapes.get(NOISE_BIAS) or bias != table[1:]:
    return []
  count = source.num_classes or 0

  def make(arrays):
    table = arrays[LABEL_TABLE]
    row = table[count] if source.null_class else table[:count].mean(axis=0)
    return arrays[NOISE_BIAS] + row

  found.made[NOISE_BIAS] = ((NOISE_BIAS, LABEL_TABLE), make)
  which = 'null row' if source.null_class else 'mean row'
  found.notes.append(
    f'labels are no longer an input; the {which} of the source is added to '
    f'{NOISE_BIAS}'
  )
  return [NOISE_BIAS, LABEL_TABLE]


def _lowres_channels(
  source: Network, target: Network, found: Matching
) -> list[str]:
  """Applies the rule of added low-res channels. Returns the names handled."""
  old, new = source.shapes.get(CONV_IN), target.shapes.get(CONV_IN)
  squares = target.patch_size**2
  if old is None or new is None or source.patch_size != target.patch_size:
    return []
  if old[:2] + old[3:] != new[:2] + new[3:]:
    return []
  if old[2] != _IMAGE_CHANNELS * squares or not new[2] > old[2]:
    return []

  def make(arrays):
    kernel = arrays[CONV_IN].reshape(*old[:2], squares, -1, old[3])
    added = jnp.zeros((*old[:2], squares, (new[2] - old[2]) // squares, old[3]))
    return jnp.concatenate([kernel, added], axis=3).reshape(new)

  found.made[CONV_IN] = ((CONV_IN,), make)
  found.notes.append('the low-res image is a new input, with weight zero')
  return [CONV_IN]


def _lowres_level(
  source: Network, target: Network, found: Matching
) -> list[str]:
  """Applies the rule of an added level input. Returns the names handled."""
  prefix = 'lowres_level/'
  names = [name for name in target.shapes if name.startswith(prefix)]
  if not names or any(name.startswith(prefix) for name in source.shapes):
    return []
  for name in names:
    if name in LEVEL:
      shape = target.shapes[name]
      found.made[name] = ((), lambda _, shape=shape: jnp.zeros(shape))
    else:
      found.fresh.append(name)
  found.notes.append(
    'the level of the low-res image is a new input, with weight zero'
  )
  return names


def _loss_weight(
  source: Network, target: Network, found: Matching
) -> list[str]:
  """Applies the rule of a learned weight. Returns the names handled."""
  prefix = f'{diffusion_score.UNCERTAINTY}/'
  old, new = (
    [name for name in network.shapes if name.startswith(prefix)]
    for network in (source, target)
  )
  if bool(old) == bool(new):
    return []
  found.fresh.extend(new)
  found.notes.append(
    'the learned weight of the loss is left out'
    if old
    else 'the learned weight of the loss starts at 1'
  )
  return old + new


def _mean(source: Network, target: Network, found: Matching) -> list[str]:
  """Applies the rule of a mean. Returns the names handled."""
  mean, detail = (f'{part}/' for part in detail_network.PARTS)
  own = {
    name.removeprefix(mean): shape
    for name, shape in target.shapes.items()
    if name.startswith(mean)
  }
  if not own or dict(source.shapes) != own:
    return []
  found.taken.update({f'{mean}{name}': name for name in own})
  fresh = [name for name in target.shapes if name.startswith(detail)]
  found.fresh.extend(fresh)
  found.notes.append('it becomes the mean, over which details are drawn')
  return [*own, *(f'{mean}{name}' for name in own), *fresh]
