"""Lets only requests of the page itself reach a server of this machine.

A browser sends requests of any site that its user visits, so a server that
listens on this machine alone is still open to those sites. Checked are

  the Host header   a name that a site points at this machine is refused (DNS
                    rebinding)
  the access token  where the server listens for other machines
  the origin        of a request that changes something: Sec-Fetch-Site or
                    Origin, and a token in a header that the page alone can read
  the size          by Content-Length, and while the body comes
  the time          that a body takes
  the number        of requests that are worked on at once

No answer carries a CORS header, so that no other site can read one.
"""

import asyncio
import hmac
import http.cookies
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = 'cdm_access'
TOKEN_HEADER = 'x-cdm-token'
HEADERS = {
  'content-security-policy': (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  ),
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
}
READING = ('GET', 'HEAD')


class Limits(NamedTuple):
  """What a request may cost.

  Attributes:
    body_bytes: size of a body.
    body_seconds: how long a body may take to arrive.
    requests: requests that are worked on at once.
  """

  body_bytes: int = 16 * 1024
  body_seconds: float = 30.0
  requests: int = 64


class Door(NamedTuple):
  """Who may ask.

  Attributes:
    hosts: names that the Host header may have, without the port; None lets
      every address that is a number pass, and no other name.
    csrf: token that the page sends with what changes something.
    access: token that every request needs, by the cookie or by ?token=; None
      where the server listens for this machine alone.
  """

  hosts: frozenset[str] | None
  csrf: str
  access: str | None = None


class Refusal(Exception):
  """A request is refused with a status and a sentence."""

  def __init__(
    self, status: int, sentence: str, headers: Mapping[str, str] | None = None
  ):
    super().__init__(sentence)
    self.status, self.headers = status, dict(headers or {})


class RequestGuard:
  """An ASGI application around another one, which it guards."""

  def __init__(self, app: App, door: Door, limits: Limits | None = None):
    self._app, self._door = app, door
    self._limits = limits or Limits()
    self._requests = 0

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or passes it on."""
    if scope['type'] != 'http':
      return  # There are no web sockets here.
    headers = {
      key.decode('latin-1').lower(): value.decode('latin-1')
      for key, value in scope['headers']
    }
    cookie = None
    sender = _Sender(send)
    self._requests += 1
    try:
      cookie = self._admit(scope, headers)
      sender.cookie = cookie
      body = _LimitedBody(receive, self._limits)
      await self._app(scope, body, sender)
    except Refusal as refusal:
      if not sender.begun:
        await _refuse(sender, refusal)
    finally:
      self._requests -= 1

  def _admit(self, scope, headers):
    """Raises Refusal, or returns the cookie to set, or None."""
    if self._requests > self._limits.requests:
      raise Refusal(429, 'Too many requests at once.', {'retry-after': '2'})
    check_host(headers.get('host', ''), self._door.hosts)
    cookie = check_access(scope, headers, self._door.access)
    if scope['method'] not in READING:
      check_origin(headers, self._door.csrf)
    length = headers.get('content-length', '0')
    if not length.isdecimal() or int(length) > self._limits.body_bytes:
      raise Refusal(413, f'At most {self._limits.body_bytes:,} bytes.')
    return cookie


def check_host(given: str, hosts: frozenset[str] | None) -> None:
  """Raises Refusal unless the Host header is a name of this server."""
  name = host_name(given)
  known = is_number(name) if hosts is None else name in hosts
  if not known:
    raise Refusal(400, 'This server does not have that name (Host header).')


def host_name(given: str) -> str:
  """Returns the host of a Host header, without port; empty if it is none."""
  try:
    parts = urllib.parse.urlsplit(f'//{given}')
    if parts.path or parts.query or parts.fragment or '@' in parts.netloc:
      return ''
    _ = parts.port  # ValueError if that is no number
    return parts.hostname or ''
  except ValueError:
    return ''


def is_number(name: str) -> bool:
  """Returns whether a host is an address, which needs no name server."""
  import ipaddress

  try:
    ipaddress.ip_address(name)
  except ValueError:
    return False
  return True


def check_access(
  scope: Scope, headers: Mapping[str, str], access: str | None
) -> str | None:
  """Raises Refusal unless the request has the access token.

  Returns:
    A Set-Cookie header, if the token came with the address; else None.
  """
  if access is None:
    return None
  query = urllib.parse.parse_qs(scope['query_string'].decode('latin-1'))
  given = query.get('token', [''])[0]
  if given and _equal(given, access):
    return f'{COOKIE}={access}; HttpOnly; SameSite=Lax; Path=/'
  cookies = http.cookies.SimpleCookie()
  try:
    cookies.load(headers.get('cookie', ''))
  except http.cookies.CookieError:
    cookies.clear()
  if COOKIE in cookies and _equal(cookies[COOKIE].value, access):
    return None
  raise Refusal(403, 'Open the whole link that the server has printed.')


def check_origin(headers: Mapping[str, str], csrf: str) -> None:
  """Raises Refusal unless the server's own page sends this request."""
  site, origin = headers.get('sec-fetch-site'), headers.get('origin')
  # Browsers leave out the first where the address is neither https nor local.
  own_site = site in (None, 'same-origin')
  own_origin = origin is None or (
    urllib.parse.urlsplit(origin).netloc == headers.get('host')
  )
  if not own_site or not own_origin or site is origin is None:
    raise Refusal(403, 'This request comes from another site.')
  if not _equal(headers.get(TOKEN_HEADER, ''), csrf):
    raise Refusal(403, 'The page is out of date; load it again.')


def _equal(given, wanted):
  return hmac.compare_digest(given.encode(), wanted.encode())


class _LimitedBody:
  """Receives a body that is no larger and no slower than allowed."""

  def __init__(self, receive, limits):
    self._receive, self._limits = receive, limits
    self._bytes, self._done = 0, False
    self._until = asyncio.get_running_loop().time() + limits.body_seconds

  async def __call__(self) -> Message:
    if self._done:  # What comes now is the end of the connection.
      return await self._receive()
    left = self._until - asyncio.get_running_loop().time()
    try:
      message = await asyncio.wait_for(self._receive(), max(left, 0.001))
    except TimeoutError:
      raise Refusal(408, 'The request took too long.') from None
    self._bytes += len(message.get('body', b''))
    if self._bytes > self._limits.body_bytes:
      raise Refusal(413, f'At most {self._limits.body_bytes:,} bytes.')
    self._done = not message.get('more_body', False)
    return message


class _Sender:
  """Sends an answer with the headers that every answer has."""

  def __init__(self, send):
    self._send, self.begun, self.cookie = send, False, None

  async def __call__(self, message: Message) -> None:
    if message['type'] == 'http.response.start':
      self.begun = True
      own = {**HEADERS, **({'set-cookie': self.cookie} if self.cookie else {})}
      names = {key.lower() for key, _ in message.get('headers', ())}
      if b'cache-control' not in names:
        own['cache-control'] = 'no-store'
      added = [(k.encode(), v.encode('latin-1')) for k, v in own.items()]
      message = {**message, 'headers': [*message.get('headers', ()), *added]}
    await self._send(message)


async def _refuse(send, refusal):
  text = str(refusal).encode()
  headers = {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': str(len(text)),
    # What is left of a body is not read.
    'connection': 'close',
    **refusal.headers,
  }
  await send(
    {
      'type': 'http.response.start',
      'status': refusal.status,
      'headers': [(k.encode(), v.encode()) for k, v in headers.items()],
    }
  )
  await send({'type': 'http.response.body', 'body': text})
