"""Addresses of this machine, with a port and without."""

import pytest

from cdm.distributed import loopback


@pytest.mark.parametrize(
  ('address', 'is_here'),
  [
    ('localhost', True),
    ('a.localhost:80', True),
    ('127.9.0.1:80', True),
    ('[::1]:80', True),
    ('0.0.0.0', True),
    ('localhost.org', False),
    ('10.0.0.1', False),
    ('', False),
    ('127.0.0.1:1', True),
    ('127.8.8.8:1', True),
    ('localhost:1', True),
    ('[::1]:1', True),
    ('0.0.0.0:1', True),
    ('10.0.0.1:1', False),
    ('node7:1', False),
    ('[fe80::1]:1', False),
  ],
)
def test_loopback_addresses_are_known(address, is_here):
  assert loopback.is_loopback(address) == is_here
