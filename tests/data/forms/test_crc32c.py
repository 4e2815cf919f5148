import numpy as np
import pytest

from cdm.data.forms import crc32c


def test_the_checksum_is_that_of_the_standard():
  """RFC 3720, appendix B.4, and the check value of the catalogues of CRCs."""
  assert crc32c.by_numpy(b'123456789') == 0xE3069283
  assert crc32c.by_numpy(bytes(32)) == 0x8A9136AA
  assert crc32c.by_numpy(b'\xff' * 32) == 0x62A8AB43
  assert crc32c.by_numpy(bytes(range(32))) == 0x46DD794E
  assert crc32c.by_numpy(b'') == 0


@pytest.mark.parametrize(
  'size', [1, 15, 16, 17, 63, 64, 65, 4097, 16383, 16384, 16385, 300_001]
)
def test_numpy_and_googles_code_agree(size):
  google = pytest.importorskip('google_crc32c')
  data = np.random.default_rng(size).bytes(size)
  assert crc32c.by_numpy(data) == google.value(data)


def test_large_and_small_data_are_computed_alike():
  data = np.random.default_rng(0).bytes(20_000)
  register = 0xFFFFFFFF
  for byte in data:  # the definition, bit by bit
    register ^= byte
    for _ in range(8):
      register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
  assert crc32c.by_numpy(data) == crc32c.crc32c(data) == register ^ 0xFFFFFFFF
