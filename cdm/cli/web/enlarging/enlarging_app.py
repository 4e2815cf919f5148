"""Serves the page that enlarges photographs, or draws from a cascade.

Nothing here decodes a picture: files go to the worker as they came, and what it
wrote goes to the page.

  POST   /pictures                 a file -> {'key': ...}
  POST   /draws                    what to draw -> {'key': ...}
  GET    /entries/KEY              what is known of it; /events as it changes
  POST   /entries/KEY/part, /file  a task
  POST   /entries/KEY/stop         ends its tasks
  DELETE /entries/KEY
  GET    /entries/KEY/media/NAME.png, /entries/KEY/files/N
"""

import asyncio
import contextlib
import importlib.resources
import json
import pathlib
import threading
import urllib.parse
from collections.abc import AsyncGenerator
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
  FileResponse,
  JSONResponse,
  Response,
  StreamingResponse,
)
from starlette.routing import Route

from cdm.cli.web import page_answers
from cdm.cli.web.enlarging import asked_tasks
from cdm.cli.web.enlarging.kept_entries import ORIGINAL, Entry, KeptEntries
from cdm.cli.web.enlarging.serving_limits import ServingLimits
from cdm.cli.web.enlarging.task_queue import QueueFull, TaskQueue
from cdm.cli.web.page_answers import Answer
from cdm.cli.web.request_guard import Refusal

PAGES = {
  'photographs': 'photographs.html',
  'cascade': 'cascade.html',
}
SHARED = (
  *('enlarging.css', 'server.js', 'viewer.js', 'photographs.js'),
  *('overview.js', 'cascade.js'),
)
JSON_BYTES = 16 * 1024
LOOK_SECONDS = 0.15  # between two looks for a change
SWEEP_SECONDS = 60.0  # between two looks for entries that are old
RETRY = {'retry-after': '10'}


class EnlargingApp:
  """The application.

  Attributes:
    app: for a server, behind a `request_guard.RequestGuard`.
    entries: what is kept.
  """

  def __init__(
    self,
    queue: TaskQueue,
    folder: pathlib.Path,
    csrf: str,
    limits: ServingLimits,
  ):
    """Begins without entries.

    Args:
      queue: takes the tasks.
      folder: a private folder, empty, for all files.
      csrf: token for the page.
      limits: what users may ask for.
    """
    self._queue, self._csrf, self._limits = queue, csrf, limits
    self.entries = KeptEntries(folder, limits, queue)
    self._closed = threading.Event()
    threading.Thread(target=self._sweep, daemon=True).start()
    entry = '/entries/{key}'
    kind = queue.about['kind']
    own = {
      'photographs': [
        Route('/pictures', self.upload, methods=['POST']),
        Route(f'{entry}/part', self.part, methods=['POST']),
        Route(f'{entry}/file', self.file, methods=['POST']),
      ],
      'cascade': [Route('/draws', self.draw, methods=['POST'])],
    }
    self.app = Starlette(
      routes=[
        Route('/', _page(PAGES[kind])),
        *(Route(f'/{name}', _page(name)) for name in SHARED),
        Route('/about', self.about),
        *own[kind],
        Route(entry, self.look, methods=['GET']),
        Route(entry, self.remove, methods=['DELETE']),
        Route(f'{entry}/events', self.events),
        Route(f'{entry}/stop', self.stop, methods=['POST']),
        Route(f'{entry}/media/{{name}}', self.media),
        Route(f'{entry}/files/{{number:int}}', self.download),
        Route('/favicon.ico', page_answers.no_icon),
      ],
      exception_handlers={Refusal: page_answers.refused},
    )
    self.app.router.redirect_slashes = False

  async def about(self, request: Request) -> Response:
    """Sends what the model is, what is allowed, and the token."""
    shown = ('upload_bytes', 'pixels', 'side', 'shown_pixels', 'kept_seconds')
    limits = {name: getattr(self._limits, name) for name in shown}
    return JSONResponse(
      {**self._queue.about, 'limits': limits, 'token': self._csrf}
    )

  async def upload(self, request: Request) -> Response:
    """Takes the file of a picture, and looks at it."""
    entry = await self._added(request.headers.get('x-file-name', ''))
    try:
      await self._receive(request, entry.folder / ORIGINAL)
      self._begin(entry, {'task': 'open'})
    except BaseException:
      await run_in_threadpool(self.entries.remove, entry)
      raise
    return JSONResponse({'key': entry.key}, 201)

  async def part(self, request: Request) -> Response:
    """Draws a part of a picture."""
    entry = self._entry(request)
    asked = asked_tasks.part(await _json(request), self._queue.about)
    self._begin(entry, asked)
    return JSONResponse(entry.view(self._queue), 202)

  async def file(self, request: Request) -> Response:
    """Enlarges the whole picture, into a file."""
    entry = self._entry(request)
    asked = asked_tasks.file(await _json(request), self._queue.about)
    self._begin(entry, asked)
    return JSONResponse(entry.view(self._queue), 202)

  async def draw(self, request: Request) -> Response:
    """Draws images of a cascade."""
    asked = asked_tasks.draw(
      await _json(request), self._queue.about, self._limits.draws
    )
    entry = await self._added(asked.pop('name'))
    try:
      self._begin(entry, asked)
    except BaseException:
      await run_in_threadpool(self.entries.remove, entry)
      raise
    return JSONResponse({'key': entry.key}, 201)

  async def look(self, request: Request) -> Response:
    """Sends what is known of an entry."""
    return JSONResponse(self._entry(request).view(self._queue))

  async def events(self, request: Request) -> Response:
    """Sends the same after every change, until nothing is worked on."""
    entry = self._entry(request)
    return StreamingResponse(
      self._changes(entry), media_type='text/event-stream'
    )

  async def _changes(self, entry: Entry) -> AsyncGenerator[str]:
    seen = -1
    while self.entries.find(entry.key) is entry:
      over, version = entry.is_idle, entry.version
      if version != seen:
        seen = version
        yield f'data: {json.dumps(entry.view(self._queue))}\n\n'
      elif over:
        break
      await asyncio.sleep(LOOK_SECONDS)
    yield 'event: over\ndata: {}\n\n'

  async def stop(self, request: Request) -> Response:
    """Cancels what is worked on."""
    entry = self._entry(request)
    self.entries.stop(entry)
    return JSONResponse(entry.view(self._queue))

  async def remove(self, request: Request) -> Response:
    """Erases an entry."""
    entry = self._entry(request)
    await run_in_threadpool(self.entries.remove, entry)
    return Response(status_code=204)

  async def media(self, request: Request) -> Response:
    """Sends a picture that the worker wrote for the page."""
    entry, name = self._entry(request), request.path_params['name']
    if name not in entry.media:
      raise Refusal(404, 'There is no such picture.')
    return FileResponse(
      entry.folder / name,
      media_type='image/png',
      headers={'cache-control': 'private, max-age=3600, immutable'},
    )

  async def download(self, request: Request) -> Response:
    """Sends an enlarged picture as a file."""
    entry, number = self._entry(request), request.path_params['number']
    if number >= len(entry.files):
      raise Refusal(404, 'There is no such file.')
    file = entry.files[number]
    entry.change()
    stem = entry.name.rpartition('.')[0] or entry.name
    return FileResponse(
      entry.folder / file['path'],
      media_type='application/octet-stream',
      filename=f'{stem}_x{file["scale"]:g}{file["suffix"]}',
    )

  def close(self) -> None:
    """Ends what erases old entries."""
    self._closed.set()

  def _sweep(self):
    while not self._closed.wait(SWEEP_SECONDS):
      self.entries.expire()

  def _entry(self, request) -> Entry:
    entry = self.entries.find(request.path_params['key'])
    if entry is None:
      raise Refusal(404, 'This picture is not here any more.')
    return entry

  async def _added(self, name: str) -> Entry:
    if not self._queue.has_room():
      raise Refusal(429, _FULL, RETRY)
    entry = await run_in_threadpool(
      self.entries.add, urllib.parse.unquote(name[:2000])
    )
    if entry is None:
      raise Refusal(429, 'Too many pictures are kept; remove some.', RETRY)
    return entry

  def _begin(self, entry, asked):
    try:
      self.entries.begin(entry, asked)
    except QueueFull:
      raise Refusal(429, _FULL, RETRY) from None

  async def _receive(self, request, path):
    """Writes a body to a file as it comes."""
    used = await run_in_threadpool(self.entries.used_bytes)
    left = self._limits.folder_bytes - used
    got = 0
    with contextlib.closing(open(path, 'wb')) as file:
      async for chunk in request.stream():
        got += len(chunk)
        if got > left:
          raise Refusal(507, _DISK)
        await run_in_threadpool(file.write, chunk)
    if not got:
      raise Refusal(400, 'The file is empty.')


_FULL = 'Too many pictures wait. Try again in a moment.'
_DISK = 'There is no room for more pictures; remove some of the list.'


def page_file(name: str) -> bytes:
  """Returns a file of the page."""
  files = importlib.resources.files('cdm.cli.web.enlarging')
  return files.joinpath('page', name).read_bytes()


def _page(name: str) -> Answer:
  return page_answers.page(page_file(name), name)


async def _json(request: Request) -> dict[str, Any]:
  """Returns the JSON object of a request."""
  body = b''
  async for chunk in request.stream():
    body += chunk
    if len(body) > JSON_BYTES:
      raise Refusal(413, f'At most {JSON_BYTES:,} bytes.')
  try:
    found = json.loads(body)
  except (ValueError, RecursionError):
    found = None
  if not isinstance(found, dict):
    raise Refusal(400, 'The body must be a JSON object.')
  return found
