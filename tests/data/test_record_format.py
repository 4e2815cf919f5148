import numpy as np
import pytest

from cdm.data import record_format, transforms


def record(size=2, *, label=7, short_side=300):
  image = np.arange(size * size * 3, dtype=np.uint8).reshape(size, size, 3)
  return record_format.pack(
    {
      'image': image,
      'label': np.int32(label),
      'short_side': np.int32(short_side),
    }
  )


HEAD = len(record_format.pack_bad(transforms.BadImage('a', 'b'))) - len(
  '["a", "b"]'
)


@pytest.mark.parametrize(('size', 'short_side'), [(1, 1), (2, 300), (5, 5)])
def test_an_image_comes_out_of_its_record_as_it_went_in(size, short_side):
  element = record_format.unpack(
    record(size, label=-1, short_side=short_side), name='x[3]'
  )
  expected = np.arange(size * size * 3).reshape(size, size, 3)
  np.testing.assert_array_equal(element['image'], expected)
  element['image'][0, 0, 0] = 9  # a copy, not a view of the file's bytes
  assert element['label'] == -1 and element['label'].dtype == np.int32
  assert element['short_side'] == short_side


def test_an_unusable_image_comes_out_as_its_own_error():
  data = record_format.pack_bad(transforms.BadImage('a.png', 'cut off'))
  with pytest.raises(transforms.BadImage) as caught:
    record_format.unpack(data, name='x[3]')
  assert caught.value.args == ('a.png', 'cut off')


@pytest.mark.parametrize(
  ('data', 'reason'),
  [
    *((record()[:cut], 'not a record') for cut in (0, 4, HEAD - 1)),
    (b'CDM2' + record()[4:], 'not a record'),
    (b'\0' + record(), 'not a record'),
    (record()[:HEAD], '0 bytes are not 2x2'),
    (record()[:-1], '11 bytes are not 2x2'),
    (record() + b'\0', '13 bytes are not 2x2'),
    (record()[: HEAD - 4] + bytes(4), '0 bytes are not 0x0'),
    (
      record()[: HEAD - 4] + b'\xfe\xff\xff\xff' + record()[HEAD:],
      '12 bytes are not -2x-2',
    ),
  ],
)
def test_a_record_whose_head_does_not_fit_its_bytes_is_refused(data, reason):
  with pytest.raises(transforms.BadImage, match=reason) as caught:
    record_format.unpack(data, name='x[3]')
  assert caught.value.args[0] == 'x[3]'
