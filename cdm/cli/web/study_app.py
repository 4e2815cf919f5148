"""Serves a study: its page, pictures and lists; and takes the answers."""

import json
import os
import pathlib
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
  FileResponse,
  JSONResponse,
  Response,
)
from starlette.routing import Route

from cdm.cli.web import page_answers
from cdm.cli.web.page_answers import Answer
from cdm.cli.web.request_guard import Refusal
from cdm.evaluation.human import (
  answer_file,
  page_data,
  panel_folder,
  person_register,
  study_file,
)
from cdm.evaluation.human.answer_file import DurableRows
from cdm.evaluation.human.person_register import Begun, PersonRegister
from cdm.evaluation.human.study_file import ANSWERS, MEDIA, PERSONS, Study
from cdm.reporting import jsonl


class StudyApp:
  """The application, with its open files.

  Attributes:
    app: for a server, behind a `request_guard.RequestGuard`.
  """

  def __init__(self, study: Study, folder: str | os.PathLike[str], csrf: str):
    """Continues with what the folder holds.

    Args:
      study: the study.
      folder: its folder.
      csrf: token for the page.

    Raises:
      ValueError: a picture is missing, or the answers are of another study.
    """
    self._study, self._csrf = study, csrf
    folder = pathlib.Path(folder)
    self._media = {
      name: folder / MEDIA / name for name in study_file.media(study)
    }
    missing = [path for path in self._media.values() if not path.is_file()]
    if missing:
      raise ValueError(
        f'{missing[0]} is missing, and {len(missing) - 1:,} other pictures of '
        'the study. Copy the whole folder, or make the study again.'
      )
    paths = [folder / PERSONS, folder / ANSWERS]
    self._persons, self._answers = map(DurableRows, paths)
    self._register = PersonRegister(
      study,
      jsonl.read(paths[0], Begun),
      answer_file.read(paths[1:], study),
    )
    self._lists: dict[int, list[dict[str, Any]]] = {}
    pages = [
      Route('/' if name == 'index.html' else f'/{name}', _page(name))
      for name in panel_folder.PAGE
    ]
    self.app = Starlette(
      routes=[
        *pages,
        Route('/media/{name}', self.media),
        Route('/study', self.texts),
        Route('/session', self.session, methods=['POST']),
        Route('/answers', self.answer, methods=['POST']),
        Route('/favicon.ico', page_answers.no_icon),
      ],
      exception_handlers={Refusal: page_answers.refused},
    )

  def close(self) -> None:
    """Closes the files."""
    self._persons.close()
    self._answers.close()

  async def media(self, request: Request) -> Response:
    """Sends a picture; only the study's own names are known."""
    path = self._media.get(request.path_params['name'])
    if path is None:
      raise Refusal(404, 'There is no such picture.')
    return FileResponse(
      path,
      media_type='image/png',
      headers={'cache-control': 'private, max-age=86400, immutable'},
    )

  async def texts(self, request: Request) -> Response:
    """Sends the texts of the page, and the token for what follows."""
    return JSONResponse({**page_data.texts(self._study), 'token': self._csrf})

  async def session(self, request: Request) -> Response:
    """Begins with a person, or goes on."""
    body = await _json(request)
    secret = body.get('person')
    person = self._register.find(secret)
    if person is None:
      try:
        secret, person = self._register.begin()
      except person_register.TooManyPersons:
        raise Refusal(
          409, 'This study has had as many persons as it can take.'
        ) from None
      row = Begun(person=person.name, list=person.list)
      await self._write(self._persons, row)
    if person.list not in self._lists:
      self._lists[person.list] = page_data.trials(self._study, person.list)
    return JSONResponse(
      {
        'person': secret,
        'code': person.name,
        'list': person.list,
        'answered': sorted(person.answered),
        'trials': self._lists[person.list],
      }
    )

  async def answer(self, request: Request) -> Response:
    """Keeps an answer; the reply comes when it is on the disk."""
    body = await _json(request)
    person = self._register.find(body.get('secret'))
    if person is None:
      raise Refusal(409, 'This study does not know you; load the page again.')
    try:
      row = self._register.answer(person, body.get('answer'))
    except ValueError as error:
      raise Refusal(422, str(error)) from None
    if row is not None:
      # Marked before it is written: a second one of the same trial, which
      # comes meanwhile, is none.
      person.answered.add(row['trial_index'])
      try:
        await self._write(self._answers, row)
      except Refusal:
        person.answered.discard(row['trial_index'])
        raise
    return JSONResponse({'kept': row is not None})

  async def _write(self, file, row):
    try:
      await run_in_threadpool(file.append, row)
    except OSError as error:
      raise Refusal(
        503, f'The answer could not be written ({error.strerror or error}).'
      ) from error


def _page(name: str) -> Answer:
  return page_answers.page(panel_folder.page_file(name), name)


async def _json(request: Request) -> dict[str, Any]:
  """Returns the JSON object of a request."""
  try:
    body = json.loads(await request.body())
  except (ValueError, RecursionError):
    body = None
  if not isinstance(body, dict):
    raise Refusal(400, 'The body must be a JSON object.')
  return body
