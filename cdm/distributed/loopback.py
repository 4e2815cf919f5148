"""Tells addresses of this machine from those of others."""

import ipaddress
import urllib.parse


def is_loopback(address: str) -> bool:
  """Returns whether HOST or HOST:PORT means the machine that uses it."""
  host = urllib.parse.urlsplit(f'//{address}').hostname or ''
  if host == 'localhost' or host.endswith('.localhost'):
    return True
  try:
    number = ipaddress.ip_address(host)
  except ValueError:
    return False  # A name.
  return number.is_loopback or number.is_unspecified
