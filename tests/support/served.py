"""A study with pictures, served as its command serves it."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import numpy as np
from PIL import Image

from cdm.cli.web import local_server
from cdm.evaluation.human import make_study

ROOT = pathlib.Path(__file__).resolve().parents[2]


def folders(where, methods, scenes, size=16):
  """Writes pictures. Returns {method: folder}."""
  found = {}
  for number, method in enumerate(methods):
    folder = where / method
    folder.mkdir(parents=True)
    draw = np.random.default_rng(number)
    for scene in range(scenes):
      pixels = draw.integers(0, 256, (size, size, 3), np.uint8)
      Image.fromarray(pixels).save(folder / f'{scene}.png')
    found[method] = str(folder)
  return found


def make(where, *, task='2afc', methods=('original', 'sr3'), scenes=9, **given):
  """Makes a study whose pictures are shown for a tenth of a second."""
  options = make_study.Options(task, seconds=0.1, **given)
  sets = folders(where / 'pictures', methods, scenes)
  return make_study.make(where / 'study', sets, None, options)


@contextlib.contextmanager
def running(study, folder, place=None, limits=None):
  """Serves in a thread. -> (HOST:PORT, link, csrf)."""
  import uvicorn

  from cdm.cli.web import study_app
  from cdm.cli.web.patient_protocol import PatientProtocol
  from cdm.cli.web.request_guard import RequestGuard

  place = local_server.check(place or local_server.Place())
  opened = local_server.listen(place)
  door = local_server.door(place)
  app = study_app.StudyApp(study, folder, door.csrf)
  server = uvicorn.Server(
    uvicorn.Config(
      RequestGuard(app.app, door, limits),
      http=PatientProtocol,
      **local_server.SETTINGS,
    )
  )
  thread = threading.Thread(target=server.run, args=([opened],), daemon=True)
  thread.start()
  link = local_server.address(place, opened)
  try:
    yield f'127.0.0.1:{opened.getsockname()[1]}', link, door.csrf
  finally:
    server.should_exit = server.force_exit = True
    thread.join(10)
    app.close()
    opened.close()


def ask(server, path, method='GET', body=None, **headers):
  """-> (status, headers, body) of a request."""
  connection = http.client.HTTPConnection(server, timeout=20)
  headers = {k.replace('_', '-'): v for k, v in headers.items()}
  if isinstance(body, dict):
    body = json.dumps(body)
  connection.request(method, path, body, headers)
  reply = connection.getresponse()
  found = reply.status, dict(reply.getheaders()), reply.read()
  connection.close()
  return found


@contextlib.contextmanager
def command(folder, *words):
  """Starts `cdm study serve`. -> (process, link)."""
  process = subprocess.Popen(
    [
      *(sys.executable, '-m', 'cdm', 'study', 'serve', str(folder)),
      *('--no_browser', *words),
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    # A server that started JAX would fail.
    env={**os.environ, 'PYTHONUNBUFFERED': '1', 'JAX_PLATFORMS': 'none'},
  )
  try:
    lines = ''
    while not (found := re.search(r'Open (http\S+)\n', lines)):
      line = process.stdout.readline()
      assert line, lines  # It has ended.
      lines += line
    yield process, found[1]
  finally:
    if process.poll() is None:
      process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
