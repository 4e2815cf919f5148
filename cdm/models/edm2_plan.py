"""Plans the levels of an EDM2 U-Net, and checks its fields."""

from collections.abc import Sequence
from typing import Any

from cdm.models import attention_products
from cdm.models.unet_plan import DTYPE, MOST_BLOCKS, REMAT, Level

# Largest values of the fields that count something, far beyond any network.
MOST = {
  'features': 2**16,
  'out_channels': 2**10,
  'head_features': 2**16,
  'num_classes': 2**24,
  'noise_multiplier': 2**10,
  'embedding_multiplier': 2**10,
}
# From 0, which is one part alone, to 1, which is the other.
BALANCES = (
  'label_balance',
  'level_balance',
  'concat_balance',
  'residual_balance',
  'attention_balance',
)


def plan(net: Any, image_size: Sequence[int]) -> tuple[Level, ...]:
  """Returns the levels of an `Edm2UNet` at an image size, finest first.

  Args:
    net: the network; its fields are checked here.
    image_size: (H, W) of the images.

  Raises:
    ValueError: the image size or a field does not fit the other fields.
  """
  _check_fields(net)
  count = len(net.multipliers)
  unit = 2 ** (count - 1)
  if any(side % unit for side in image_size):
    height, width = image_size
    raise ValueError(
      f'Images have {width}x{height} pixels; with {count} levels both sides '
      f'must be multiples of {unit}.'
    )
  sizes = [tuple(side // 2**i for side in image_size) for i in range(count)]
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
    if attends and features % net.head_features:
      raise ValueError(
        f'head_features is {net.head_features}, which does not divide the '
        f'{features} channels of an attention.'
      )
    levels.append(
      Level(
        size=size,
        features=features,
        num_blocks=net.num_blocks,
        dropout=net.dropout,
        num_heads=features // net.head_features if attends else 0,
        attention=attention,
      )
    )
  return tuple(levels)


def _check_fields(net: Any) -> None:
  """Raises ValueError for a field that no network can have; it is named."""
  for field, known in (
    ('dtype', DTYPE),
    ('remat', REMAT),
    ('attention', attention_products.FORMS),
  ):
    value = getattr(net, field)
    if value not in known:
      raise ValueError(f'{field} is {value!r}; known are {", ".join(known)}.')
  for field, most in MOST.items():
    value = getattr(net, field)
    if value is not None and not 1 <= value <= most:
      raise ValueError(f'{field} is {value}; it must be from 1 to {most}.')
  if not net.multipliers:
    raise ValueError('multipliers is empty; give one number for each level.')
  if min(int(m * net.features) for m in net.multipliers) < 1:
    raise ValueError(
      f'multipliers is {tuple(net.multipliers)}; every level must have at '
      f'least one channel, and features is {net.features}.'
    )
  if not 1 <= net.num_blocks <= MOST_BLOCKS:
    raise ValueError(
      f'num_blocks is {net.num_blocks}; every level needs one block or more, '
      f'up to {MOST_BLOCKS}.'
    )
  if not 0.0 <= net.dropout < 1.0:
    raise ValueError(
      f'dropout is {net.dropout}; a rate must be at least 0 and below 1.'
    )
  for field in BALANCES:
    if not 0.0 <= getattr(net, field) <= 1.0:
      raise ValueError(
        f'{field} is {getattr(net, field)}; it must be a share, from 0 to 1.'
      )
  for field in ('clip', 'lowres_scale'):
    value = getattr(net, field)
    if value is not None and not value > 0:
      raise ValueError(f'{field} is {value}; it must be above 0.')
  taps = tuple(net.resample_filter)
  if len(taps) < 2 or len(taps) % 2 or taps != taps[::-1] or not sum(taps) > 0:
    raise ValueError(
      f'resample_filter is {taps}; give an even number of symmetric taps whose '
      'sum is above 0, such as (1, 1).'
    )
  if net.null_class and net.num_classes is None:
    raise ValueError(
      'null_class is True, but num_classes is None; null_class needs '
      'num_classes.'
    )
