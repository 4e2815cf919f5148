"""Answers with files of a page, with nothing, and with a refusal."""

import pathlib
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from cdm.cli.web.request_guard import Refusal

TYPES = {'.html': 'text/html', '.css': 'text/css', '.js': 'text/javascript'}
Answer = Callable[[Request], Awaitable[Response]]


def page(data: bytes, name: str) -> Answer:
  """Returns what answers with a file of the page.

  Args:
    data: the file.
    name: its name, whose suffix says what it is.
  """
  kind = TYPES[pathlib.Path(name).suffix]

  async def send(request: Request) -> Response:
    return Response(data, media_type=kind)

  return send


async def no_icon(request: Request) -> Response:
  """Answers a browser that asks for an icon."""
  return Response(status_code=204)


async def refused(request: Request, refusal: Exception) -> Response:
  """Answers with the sentence of a `Refusal`."""
  assert isinstance(refusal, Refusal)
  return PlainTextResponse(
    str(refusal),
    refusal.status,
    # What is left of a body is not read.
    {'connection': 'close', **refusal.headers},
  )
