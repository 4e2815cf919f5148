"""Reads the architecture of published PyTorch U-Nets from the shapes they hold.

What shapes cannot tell is asked for: the size of the images, the heads of
attention and the order of their channels, the groups of a normalisation and the
dropout. The rest follows from the way up, where every level of [ADM] and of the
unofficial SR3 ends in its upsampling.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

State = Mapping[str, np.ndarray]


class Architecture(NamedTuple):
  """What a file tells about its network.

  Attributes:
    fields: those fields of `UNet` that follow from it.
    lowres_channels: channels of a low-res image beside the noisy one, 0 for a
      base model.
    levels: where the blocks of each level attend, finest first.
  """

  fields: dict[str, Any]
  lowres_channels: int
  levels: tuple[bool, ...]

  def at(self, image_size: int) -> dict[str, Any]:
    """Returns the fields of the `UNet` for images of this size.

    Args:
      image_size: H = W of the images.
    """
    return {
      **self.fields,
      'attention_resolutions': tuple(
        image_size >> i for i, attends in enumerate(self.levels) if attends
      ),
    }


class _Way(NamedTuple):
  """The names in a file of one family.

  Attributes:
    first: convolution that the image enters.
    embedded: layer that the sinusoids enter, which have the base width.
    last: convolution that the prediction leaves.
    blocks: list of the entries on the way up.
    conv2: the second convolution of a residual block, after its entry.
    attention: what an entry with an attention holds.
    embedding: the projection of the embedding in an entry.
    upsampling: what the last entry of a level holds, by kind of resampling.
    alone: whether the upsampling is an entry of its own.
  """

  first: str
  embedded: str
  last: str
  blocks: str
  conv2: str
  attention: str
  embedding: str
  upsampling: dict[str, tuple[str, ...]]
  alone: bool


_ADM = _Way(
  first='input_blocks.0.0',
  embedded='time_embed.0',
  last='out.2',
  blocks='output_blocks',
  conv2='0.out_layers.3.weight',
  attention='1.qkv.weight',
  embedding='0.emb_layers.1.weight',
  upsampling={
    'conv': ('1.conv.weight', '2.conv.weight'),
    'biggan': ('1.in_layers.0.weight', '2.in_layers.0.weight'),
  },
  alone=False,
)
_SR3 = _Way(
  first='downs.0',
  embedded='noise_level_mlp.1',
  last='final_conv.block.3',
  blocks='ups',
  conv2='res_block.block2.block.3.weight',
  attention='attn.qkv.weight',
  embedding='res_block.noise_func.noise_func.0.weight',
  upsampling={'conv': ('conv.weight',)},
  alone=True,
)


def read_adm(state: State) -> Architecture:
  """Reads the architecture of [ADM]'s or [IDDPM]'s U-Net.

  Args:
    state: {name: array} in PyTorch's names and layouts.

  Raises:
    ValueError: the file holds no such network.
  """
  found = _read(state, _ADM)
  classes = state.get('label_emb.weight')
  return found._replace(
    fields={
      **found.fields,
      'num_classes': None if classes is None else len(classes),
      'condition_on': 't',
    }
  )


def read_sr3(state: State) -> Architecture:
  """Reads the architecture of the unofficial PyTorch SR3's U-Net.

  Args:
    state: see `read_adm`.

  Raises:
    ValueError: the file holds no such network.
  """
  found = _read(state, _SR3)
  return found._replace(
    fields={
      **found.fields,
      'num_classes': None,
      'condition_on': 'sqrt_alpha_bar',
      'condition_scale': 1.0,
    }
  )


def _read(state: State, names: _Way) -> Architecture:
  """Reads what the families have in common."""
  in_channels = _shape(state, f'{names.first}.weight', 4)[1]
  features = _shape(state, f'{names.embedded}.weight', 2)[1]
  out_channels = _shape(state, f'{names.last}.weight', 4)[0]
  matches = map(re.compile(rf'{names.blocks}\.(\d{{1,6}})\.').match, state)
  count = len({match[1] for match in matches if match})
  if not count:
    raise ValueError(
      f'The file has no {names.blocks}.0, where the way up of such a network '
      'begins.'
    )
  levels: list[list[str]] = [[]]
  resample = set()
  for i in range(count):
    entry = f'{names.blocks}.{i}.'
    kind = next(
      (
        kind
        for kind, ends in names.upsampling.items()
        if any(f'{entry}{end}' in state for end in ends)
      ),
      None,
    )
    if not (names.alone and kind):
      levels[-1].append(entry)
    if kind:
      resample.add(kind)
      levels.append([])
  if not all(levels) or len(resample) > 1:
    raise ValueError(
      f'The {count} entries of {names.blocks} in the file form no levels; it '
      'may be of another kind.'
    )
  levels.reverse()
  widths = [_shape(state, f'{b[0]}{names.conv2}', 4)[0] for b in levels]
  projected = _shape(state, f'{levels[0][0]}{names.embedding}', 2)[0]
  blocks = [len(b) - 1 for b in levels]
  learned = out_channels == 6
  return Architecture(
    {
      'features': features,
      'multipliers': tuple(_whole(width / features) for width in widths),
      'num_blocks': blocks[0] if len(set(blocks)) == 1 else tuple(blocks),
      'out_channels': out_channels // (1 + learned),
      'learned_variance': learned,
      'resample': resample.pop() if resample else 'conv',
      'embedding': 'film' if projected == 2 * widths[0] else 'additive',
    },
    in_channels - out_channels // (1 + learned),
    tuple(f'{b[0]}{names.attention}' in state for b in levels),
  )


def _shape(state: State, name: str, axes: int) -> tuple[int, ...]:
  shape = state[name].shape if name in state else None
  if shape is None or len(shape) != axes or not all(shape):
    what = 'missing' if shape is None else f'of shape {list(shape)}'
    raise ValueError(
      f'{name} is {what}: these are not the weights of such a network.'
    )
  return shape


def _whole(value: float) -> float:
  return int(value) if value == int(value) else value
