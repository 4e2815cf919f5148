import pytest

from cdm.models import unet_plan
from cdm.models.unet import UNet
from cdm.models.unet_plan import Level, plan


def net(**fields):
  return UNet(
    **{'features': 8, 'multipliers': (1, 2), 'num_blocks': 3, **fields}
  )


def test_a_plan_says_what_stands_at_each_resolution():
  found = plan(
    net(
      multipliers=(1, 1.5, 4),
      num_blocks=(1, 2, 3),
      dropout=(0.0, 0.25, 0.5),
      attention_resolutions=(16,),
      head_features=4,
      patch_size=2,
    ),
    (64, 32),
  )
  assert found == (
    Level((32, 16), 8, 1, 0.0, 0, False),
    Level((16, 8), 12, 2, 0.25, 3, True),
    Level((8, 4), 32, 3, 0.5, 8, False),  # the middle attends
  )
  assert [level.name for level in found] == ['32x16', '16x8', '8x4']
  one = plan(net(num_heads=4, dropout=0.1), (6, 6))
  assert one == (
    Level((6, 6), 8, 3, 0.1, 0, False),
    Level((3, 3), 16, 3, 0.1, 4, False),
  )
  assert one[1].name == '3'


@pytest.mark.parametrize(
  ('fields', 'size'),
  [
    ({'multipliers': (1,), 'num_blocks': (1,)}, (1, 1)),
    ({'norm_eps': 1e-12, 'condition_scale': 1e-9}, (2, 2)),
    ({'null_class': True, 'num_classes': 1}, (2, 2)),
    ({'multipliers': (1, 0.125)}, (2, 2)),
    ({'attention_resolutions': (4, 2)}, (2, 4)),
    ({'num_blocks': unet_plan.MOST_BLOCKS}, (2, 2)),
    ({'dropout': 0.999}, (2, 2)),
    *(
      ({field: least, 'multipliers': (8,)}, (1024, 1024))
      for field in unet_plan.MOST
      for least in (1, unet_plan.MOST[field])
      if not field.startswith(('num_heads', 'head_features'))
    ),
    ({'num_heads': 2**10, 'features': 2**10}, (2, 2)),
    ({'head_features': 2**16, 'features': 2**16}, (2, 2)),
  ],
)
def test_numbers_at_the_ends_of_their_range_are_taken(fields, size):
  assert plan(net(**fields), size)


@pytest.mark.parametrize(
  ('fields', 'size', 'message'),
  [
    ({}, (6, 3), '3x6 pixels; with 2 levels .* multiples of 2'),
    ({'patch_size': 2}, (6, 8), '8x6 pixels; .* multiples of 4'),
    ({'attention_resolutions': (4, 3)}, (4, 4), r'has \[3\], .* are \[4, 2\]'),
    ({'dropout': (0.1,)}, (2, 2), 'dropout has 1 values for 2 levels'),
    ({'num_blocks': (1, 0)}, (2, 2), 'every level needs one block or more'),
    ({'num_blocks': (1, 1001)}, (2, 2), 'num_blocks is .* up to 1000'),
    ({'dropout': 1.0}, (2, 2), r'dropout is 1\.0'),
    ({'dropout': -0.1}, (2, 2), r'dropout is -0\.1'),
    ({'multipliers': (1, 0.124)}, (2, 2), 'at least one channel'),
    ({'multipliers': ()}, (2, 2), 'multipliers is empty'),
    ({'norm_eps': 0.0}, (2, 2), r'norm_eps is 0\.0'),
    ({'condition_scale': 0}, (2, 2), 'condition_scale is 0'),
    ({'num_heads': 3}, (2, 2), 'num_heads is 3, which does not divide the 16'),
    ({'head_features': 5}, (2, 2), 'head_features is 5, which does not'),
    ({'head_features': 4, 'num_heads': 2}, (2, 2), 'give one of them'),
    ({'null_class': True}, (2, 2), 'null_class needs num_classes'),
    ({'remat': 'some'}, (2, 2), "remat is 'some'; known are none, conv"),
    ({'attention': 'flash'}, (2, 2), "attention is 'flash'; known are auto, "),
    *(
      ({field: value}, (2, 2), f'{field} is {value}; it must be from 1 to')
      for field, most in unet_plan.MOST.items()
      for value in (0, most + 1)
      if field != 'head_features' or value
    ),
  ],
)
def test_numbers_beyond_their_range_are_named(fields, size, message):
  with pytest.raises(ValueError, match=message):
    plan(net(**fields), size)
