"""Serves a page from this machine: port, tokens, address, browser, end."""

import os
import secrets
import socket
import sys
import threading
import webbrowser
from typing import Any, NamedTuple

from cdm.cli.web.request_guard import App, Door, Limits, RequestGuard, is_number
from cdm.distributed import loopback

LOCAL = frozenset({'localhost', '127.0.0.1', '::1'})
LEAST_TOKEN = 16  # characters
MADE = 'made'  # stands for a token that is made here
# Of Uvicorn. Nothing tells who has asked: there is no log of requests.
SETTINGS: dict[str, Any] = dict(
  ws='none',
  lifespan='off',
  log_level='warning',
  access_log=False,
  proxy_headers=False,
  server_header=False,
  limit_concurrency=512,
  timeout_keep_alive=30,
  timeout_graceful_shutdown=5,
)


class Place(NamedTuple):
  """Where a server listens.

  Attributes:
    host: name or address.
    port: 0 takes a free one.
    token: access token, or `MADE`; None where only this machine can ask.
  """

  host: str = '127.0.0.1'
  port: int = 0
  token: str | None = None


def check(place: Place) -> Place:
  """Returns where to listen, with a token if one is to be made.

  Raises:
    ValueError: other machines could ask without a token, or a value is none.
  """
  token = place.token
  if not is_local(place.host) and token is None:
    raise ValueError(
      f'--host={place.host} lets other machines ask, which needs a token. Give '
      '--token alone, which makes one, or --token=TEXT.'
    )
  if token == MADE:
    token = secrets.token_urlsafe(16)
  allowed = token is None or (
    len(token) >= LEAST_TOKEN and token.isascii() and token.isprintable()
  )
  if not allowed or (token and set(token) & set(' ",;\\&=#+%?')):
    raise ValueError(
      f'--token needs {LEAST_TOKEN} letters, digits, - or _ or more. Give '
      '--token alone, which makes one.'
    )
  if not 0 <= place.port < 65536:
    raise ValueError(
      f'--port={place.port}: ports are 1 to 65535, and 0 takes a free one.'
    )
  return place._replace(token=token)


def is_local(host: str) -> bool:
  """Returns whether only this machine can reach a server at this host."""
  # 0.0.0.0 means every machine to a server, but this one to a client.
  everywhere = host in ('', '0.0.0.0', '::')
  return not everywhere and loopback.is_loopback(
    f'[{host}]' if ':' in host else host
  )


def door(place: Place) -> Door:
  """Returns who may ask a server there."""
  hosts: frozenset[str] | None
  if is_local(place.host):
    hosts = LOCAL | {place.host.lower()}
  elif is_number(place.host) or not place.host:
    hosts = None
  else:
    hosts = LOCAL | {place.host.lower()}
  return Door(hosts, secrets.token_urlsafe(16), place.token)


def listen(place: Place) -> socket.socket:
  """Opens the port.

  Raises:
    ValueError: it is taken, or the host is not of this machine.
  """
  try:
    family = socket.getaddrinfo(place.host or '0.0.0.0', None)[0][0]
    opened = socket.socket(family, socket.SOCK_STREAM)
    if os.name == 'posix':  # so that a restart need not wait for a minute
      opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((place.host, place.port))
    opened.listen(128)
  except OSError as error:
    raise ValueError(
      f'--host={place.host} --port={place.port} cannot be listened at: '
      f'{error.strerror or error}. Give another port (0 takes a free one), or '
      'a host that is an address of this machine.'
    ) from error
  return opened


def address(place: Place, opened: socket.socket) -> str:
  """Returns the link to open, with the token if there is one."""
  host = place.host
  if host in ('', '0.0.0.0', '::'):
    host = _own_address()
  host = f'[{host}]' if ':' in host else host
  token = f'?token={place.token}' if place.token else ''
  return f'http://{host}:{opened.getsockname()[1]}/{token}'


def _own_address():
  """Returns the address at which a local network knows this machine."""
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      probe.connect(('192.0.2.1', 9))  # Nothing is sent.
      return probe.getsockname()[0]
    except OSError:
      return socket.gethostname()


def open_browser(link: str) -> None:
  """Opens the link in a browser with a screen, if there is one."""
  screen = sys.platform == 'darwin' or any(
    os.environ.get(name) for name in ('DISPLAY', 'WAYLAND_DISPLAY')
  )
  if screen:
    threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()


def serve(
  app: App, guard: Door, opened: socket.socket, limits: Limits | None = None
) -> None:
  """Answers requests until Ctrl-C; requests are not logged.

  Args:
    app: an ASGI application.
    guard: who may ask.
    opened: where it listens.
    limits: what a request may cost.
  """
  import uvicorn

  from cdm.cli.web.patient_protocol import PatientProtocol

  config = uvicorn.Config(
    RequestGuard(app, guard, limits), http=PatientProtocol, **SETTINGS
  )
  uvicorn.Server(config).run(sockets=[opened])
