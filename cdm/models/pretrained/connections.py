"""Opens URLs with certificates, and those of this machine without a proxy.

Python from python.org finds no certificates on a Mac until its user has run a
script that comes with it, and neither does a slim container. The package
certifi brings a set of its own.
"""

import contextlib
import os
import ssl
import urllib.request
from typing import Any

import certifi

from cdm.distributed import loopback


def open_url(request: urllib.request.Request, *, timeout: float) -> Any:
  """Opens a URL, as `urllib.request.urlopen` does."""
  context = ssl.create_default_context(cafile=own_certificates())
  opener = urllib.request.build_opener(
    urllib.request.HTTPSHandler(context=context), _Proxies()
  )
  return opener.open(request, timeout=timeout)


def own_certificates() -> str | None:
  """Returns the file of certifi's certificates, or None if Python finds some.

  They are used only where Python finds none: those of a system may hold one
  that its administrator has added.
  """
  paths = ssl.get_default_verify_paths()
  if paths.cafile is not None:
    return None
  with contextlib.suppress(OSError):
    if paths.capath is not None and os.listdir(paths.capath):
      return None
  # Windows keeps certificates elsewhere than in files.
  if ssl.create_default_context().cert_store_stats()['x509_ca']:
    return None
  return certifi.where()


def reason(error: BaseException) -> str:
  """Returns why a URL could not be opened, for the middle of a sentence."""
  inner = getattr(error, 'reason', None) or error
  if not isinstance(inner, ssl.SSLCertVerificationError):
    return str(inner)
  own = own_certificates()
  whose = (
    'the certificates that this Python finds'
    if own is None
    else f'the certificates of the package certifi, {own}, as this Python '
    'finds none of its own'
  )
  return (
    f'its certificate is not valid by {whose}: {inner.verify_message}; if a '
    'proxy signs connections here, name its certificate with SSL_CERT_FILE=FILE'
  )


class _Proxies(urllib.request.ProxyHandler):
  """Uses the proxies of the environment, but never to reach this machine."""

  # urllib names the last argument so.
  def proxy_open(self, req: Any, proxy: Any, type: Any) -> Any:
    """Sets the proxy of a request, unless it goes to this machine."""
    if loopback.is_loopback(req.host):
      return None
    return super().proxy_open(req, proxy, type)
