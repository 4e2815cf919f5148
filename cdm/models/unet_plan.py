"""Plans the levels of a U-Net for an image size, and checks its fields.

A `Level` holds the size, width, blocks and attention of one feature map.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from cdm.models import attention_products

RESAMPLE = ('biggan', 'conv', 'conv_one_sided', 'plain')
EMBEDDING = ('film', 'additive')
CONDITION_ON = ('t', 'sqrt_alpha_bar', 'logsnr', 'nothing')
DTYPE = ('float32', 'bfloat16')
# What the backward pass recomputes of each residual block and attention:
# nothing ('none'); all but the outputs of convolutions and projections, that is
# norms, activations and attention weights ('convolutions'); or everything, from
# the block's input ('full').
REMAT = ('none', 'convolutions', 'full')


# Largest values of the fields that count something, far beyond any network.
MOST = {
  'features': 2**16,
  'out_channels': 2**10,
  'num_heads': 2**10,
  'head_features': 2**16,
  'num_classes': 2**24,
  'patch_size': 2**10,
  'norm_groups': 2**16,
}
MOST_BLOCKS = 1000  # of a level


class Level(NamedTuple):
  """One resolution of a U-Net.

  Attributes:
    size: (H, W) of the feature map.
    features: its channels.
    num_blocks: residual blocks on the way down; on the way up it is one more.
    dropout: rate in [0, 1].
    num_heads: heads of attention; 0 if nothing attends at this resolution.
    attention: True if an attention follows every block. (The middle of the
      U-Net, at the coarsest resolution, always attends.)
    up_heads: heads on the way up, where they are another number; else None.
  """

  size: tuple[int, int]
  features: int
  num_blocks: int
  dropout: float
  num_heads: int
  attention: bool
  up_heads: int | None = None

  @property
  def name(self) -> str:
    """Height and width, '64' or '64x48', which parameter names contain."""
    height, width = self.size
    return f'{height}' if height == width else f'{height}x{width}'


def plan(net: Any, image_size: Sequence[int]) -> tuple[Level, ...]:
  """Returns the levels of a U-Net at an image size, finest first.

  Args:
    net: a `UNet`; its fields are checked here.
    image_size: (H, W) of the images.

  Raises:
    ValueError: the image size or a field does not fit the other fields.
  """
  _check_fields(net)
  count = len(net.multipliers)
  unit = net.patch_size * 2 ** (count - 1)
  if any(side % unit for side in image_size):
    height, width = image_size
    raise ValueError(
      f'Images have {width}x{height} pixels; with {count} levels and '
      f'patch_size {net.patch_size} both sides must be multiples of {unit}.'
    )
  sizes = [
    tuple(side // net.patch_size // 2**i for side in image_size)
    for i in range(count)
  ]
  unknown = set(net.attention_resolutions) - {max(size) for size in sizes}
  if unknown:
    raise ValueError(
      f'attention_resolutions has {sorted(unknown)}, but the feature maps are '
      f'{[max(size) for size in sizes]}.'
    )
  levels = []
  for i, size in enumerate(sizes):
    features = int(net.multipliers[i] * net.features)
    attention = max(size) in net.attention_resolutions
    attends = attention or i == count - 1  # the middle always does
    heads, up_heads = _num_heads(net, features) if attends else (0, 0)
    levels.append(
      Level(
        size=size,
        features=features,
        num_blocks=_per_level(net, 'num_blocks')[i],
        dropout=_per_level(net, 'dropout')[i],
        num_heads=heads,
        attention=attention,
        up_heads=None if up_heads == heads else up_heads,
      )
    )
  return tuple(levels)


def _per_level(net: Any, field: str) -> tuple:
  """Returns one value per level of a field that holds one number or several."""
  value, count = getattr(net, field), len(net.multipliers)
  if not isinstance(value, Sequence):
    return (value,) * count
  if len(value) != count:
    raise ValueError(
      f'{field} has {len(value)} values for {count} levels; give one number '
      'or one per level.'
    )
  return tuple(value)


def _num_heads(net: Any, channels: int) -> tuple[int, ...]:
  """Returns the heads of attention over so many channels, on both ways."""
  both = _both_ways(net.num_heads)
  if any(channels % (net.head_features or heads) for heads in both):
    field = 'num_heads' if net.head_features is None else 'head_features'
    raise ValueError(
      f'{field} is {getattr(net, field)}, which does not divide the {channels} '
      'channels of an attention.'
    )
  return (channels // net.head_features,) * 2 if net.head_features else both


def _both_ways(num_heads: int | Sequence[int]) -> tuple[int, ...]:
  """Returns the field `num_heads` as (way down and middle, way up)."""
  if not isinstance(num_heads, Sequence):
    return num_heads, num_heads
  if len(num_heads) != 2:
    raise ValueError(
      f'num_heads has {len(num_heads)} values; give one number, or two: that '
      'of the way down and the middle, and that of the way up.'
    )
  return tuple(num_heads)


def _check_fields(net: Any) -> None:
  """Raises ValueError for a field that is unknown or contradicts another."""
  for field, known in (
    ('resample', RESAMPLE),
    ('embedding', EMBEDDING),
    ('condition_on', CONDITION_ON),
    ('dtype', DTYPE),
    ('remat', REMAT),
    ('attention', attention_products.FORMS),
  ):
    value = getattr(net, field)
    if value not in known:
      raise ValueError(f'{field} is {value!r}; known are {", ".join(known)}.')
  if net.head_features is not None and set(_both_ways(net.num_heads)) != {1}:
    raise ValueError(
      f'num_heads is {net.num_heads} and head_features is '
      f'{net.head_features}; give one of them, and leave num_heads=1 or '
      'head_features=None.'
    )
  _check_numbers(net)
  if net.null_class and net.num_classes is None:
    raise ValueError(
      'null_class is True, but num_classes is None; null_class needs '
      'num_classes.'
    )


def _check_numbers(net: Any) -> None:
  """Raises ValueError for a number that no network can have."""
  if not net.multipliers:
    raise ValueError('multipliers is empty; give one number for each level.')
  for field, most in MOST.items():
    value = getattr(net, field)
    numbers = _both_ways(value) if field == 'num_heads' else (value,)
    if any(n is not None and not 1 <= n <= most for n in numbers):
      raise ValueError(f'{field} is {value}; it must be from 1 to {most}.')
  for field in ('condition_scale', 'norm_eps', 'max_period'):
    value = getattr(net, field)
    if value is not None and not value > 0:
      raise ValueError(f'{field} is {value}; it must be above 0.')
  blocks = _per_level(net, 'num_blocks')
  if not 1 <= min(blocks) <= max(blocks) <= MOST_BLOCKS:
    raise ValueError(
      f'num_blocks is {net.num_blocks}; every level needs one block or more, '
      f'up to {MOST_BLOCKS}.'
    )
  rates = _per_level(net, 'dropout')
  if not all(0.0 <= rate < 1.0 for rate in rates):
    raise ValueError(
      f'dropout is {net.dropout}; a rate must be at least 0 and below 1.'
    )
  if min(int(m * net.features) for m in net.multipliers) < 1:
    raise ValueError(
      f'multipliers is {tuple(net.multipliers)}; every level must have at '
      f'least one channel, and features is {net.features}.'
    )
