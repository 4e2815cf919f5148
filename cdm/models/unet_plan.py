"""What the fields of a U-Net mean at an image size: one `Level` per map."""

from collections.abc import Sequence
from typing import NamedTuple

RESAMPLE = ('biggan', 'conv', 'plain')
EMBEDDING = ('film', 'additive')
CONDITION_ON = ('t', 'sqrt_alpha_bar', 'logsnr')
DTYPE = ('float32', 'bfloat16')
# Of each residual block and attention the backward pass finds everything
# ('none' is recomputed), what its convolutions and projections gave
# ('convolutions': norms, activations and attention weights are recomputed), or
# its input alone ('full').
REMAT = ('none', 'convolutions', 'full')


class Level(NamedTuple):
  """What happens at one resolution; the plan holds one per feature map."""

  size: tuple[int, int]  # of the feature map, H W
  features: int
  num_blocks: int  # down; one more up
  dropout: float
  num_heads: int
  attention: bool

  @property
  def name(self):
    height, width = self.size
    return f'{height}' if height == width else f'{height}x{width}'


def plan(net, image_size):
  """-> the `Level`s of a U-Net at an image size, finest first.

  Args:
    net: a `UNet`; its fields are checked here.
    image_size: (H, W) of the images.

  Raises:
    ValueError: a field, or the size, does not fit the others.
  """
  _check_fields(net)
  count = len(net.multipliers)
  unit = net.patch_size * 2 ** (count - 1)
  if any(side % unit for side in image_size):
    height, width = image_size
    raise ValueError(
      f'Images are {height}x{width}; with {count} levels and patch_size '
      f'{net.patch_size} both sides must be multiples of {unit}.'
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
    levels.append(
      Level(
        size=size,
        features=features,
        num_blocks=_per_level(net, 'num_blocks')[i],
        dropout=_per_level(net, 'dropout')[i],
        num_heads=_num_heads(net, features) if attends else 0,
        attention=attention,
      )
    )
  return tuple(levels)


def _per_level(net, field):
  """-> the values of a field that holds one number or one per level."""
  value, count = getattr(net, field), len(net.multipliers)
  if not isinstance(value, Sequence):
    return (value,) * count
  if len(value) != count:
    raise ValueError(
      f'{field} has {len(value)} values for {count} levels; give one number '
      'or one per level.'
    )
  return tuple(value)


def _num_heads(net, channels):
  if channels % (net.head_features or net.num_heads):
    given = 'num_heads' if net.head_features is None else 'head_features'
    raise ValueError(
      f'Attention over {channels} channels does not divide by {given} '
      f'{getattr(net, given)}.'
    )
  return channels // net.head_features if net.head_features else net.num_heads


def _check_fields(net):
  for field, known in (
    ('resample', RESAMPLE),
    ('embedding', EMBEDDING),
    ('condition_on', CONDITION_ON),
    ('dtype', DTYPE),
    ('remat', REMAT),
  ):
    value = getattr(net, field)
    if value not in known:
      raise ValueError(f'{field} is {value!r}; known are {", ".join(known)}.')
  if net.head_features is not None and net.num_heads != 1:
    raise ValueError(
      f'Both num_heads {net.num_heads} and head_features {net.head_features} '
      'are set; give one of them.'
    )
  if min(_per_level(net, 'num_blocks')) < 1:
    raise ValueError(
      f'num_blocks is {net.num_blocks}; every level needs one block or more.'
    )
  if net.null_class and net.num_classes is None:
    raise ValueError('null_class needs num_classes.')
