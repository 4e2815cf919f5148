"""Who may ask the page that enlarges pictures, for what, and what is kept.

Each point of the security list has its test here; those that the page shares
with a study's (loopback or a token, Host header, no CORS, same origin, times)
have theirs in `test_study_server`, and one each here.
"""

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest
from support import served, served_pictures, stand_in_worker

from cdm.cli import private_folder
from cdm.cli.commands import serve
from cdm.cli.web.enlarging import kept_entries, task_queue
from cdm.cli.web.enlarging.serving_limits import ServingLimits

pytest.importorskip('starlette', reason='needs the extra web')
pytest.importorskip('uvicorn', reason='needs the extra web')

OWN = {'sec_fetch_site': 'same-origin'}
PICTURE = stand_in_worker.png(8, 90)
PART = {
  **stand_in_worker.PART,
  **dict(scale=4.0, seed=0, seeds=2, map=True, label=None),
}
FILE = dict(scale=4.0, seed=0, detail=0.6, strip=False, format=None, label=None)
SMALL = ServingLimits(upload_bytes=100_000, upload_seconds=0.5, entries=12)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """-> (host, csrf, app); tests of this file only add pictures."""
  folder = tmp_path_factory.mktemp('kept')
  command = served_pictures.stand_in('photographs', 'good')
  with served_pictures.running(command, folder, SMALL) as (host, _, csrf, app):
    yield host, csrf, app


def post(site, path, body=None, method='POST', **headers):
  host, csrf, _ = site
  return served.ask(
    *(host, path, method, body), **{**OWN, 'x_cdm_token': csrf, **headers}
  )


def given(site, name='cat.png', body=PICTURE):
  """-> the key of a picture that was sent."""
  status, _, reply = post(site, '/pictures', body, x_file_name=name)
  assert status == 201, reply
  return json.loads(reply)['key']


def over(site, key):
  """-> what is known of an entry on which nothing is worked any more."""
  while True:
    found = json.loads(served.ask(site[0], f'/entries/{key}')[2])
    if found['state'] not in ('waiting', 'working'):
      return found
    time.sleep(0.01)


def until(check):
  """Waits for something that must come."""
  for _ in range(1000):
    if check():
      return
    time.sleep(0.01)
  pytest.fail('It did not come.')


def test_from_a_picture_to_its_file_and_what_is_sent_along(site):
  key = given(site, 'My%20c%C3%A4t.png')
  found = over(site, key)
  assert found['name'] == 'My cät.png' and found['state'] == 'done'
  status, headers, body = served.ask(
    site[0], f'/entries/{key}/media/overview.png'
  )
  assert (status, body) == (200, stand_in_worker.png(32, 90))
  assert headers['content-type'] == 'image/png'
  status, _, reply = post(site, f'/entries/{key}/file', FILE)
  assert status == 202, reply
  (file,) = over(site, key)['files']
  assert 'path' not in file
  status, headers, body = served.ask(site[0], f'/entries/{key}/files/0')
  assert body == stand_in_worker.png(128, 120)
  assert headers['content-disposition'] == (
    "attachment; filename*=utf-8''My%20c%C3%A4t_x4.png"
  )
  for path in ('/', '/server.js', '/about', f'/entries/{key}/files/0'):
    status, headers, _ = served.ask(site[0], path)
    assert status == 200
    policy = headers['content-security-policy']
    assert "default-src 'self'; img-src 'self' blob:" in policy
    assert "frame-ancestors 'none'" in policy and "object-src 'none'" in policy
    assert headers['x-content-type-options'] == 'nosniff'
    assert headers['referrer-policy'] == 'no-referrer'
    assert not [h for h in headers if h.lower().startswith('access-control')]
  # Its own events end when nothing is worked on.
  status, headers, body = served.ask(site[0], f'/entries/{key}/events')
  assert headers['content-type'].startswith('text/event-stream')
  assert body.startswith(b'data: {') and body.endswith(
    b'event: over\ndata: {}\n\n'
  )


@pytest.mark.parametrize(
  'headers, status',
  [
    (dict(host='rebound.example'), 400),
    (dict(sec_fetch_site='cross-site'), 403),
    (dict(sec_fetch_site='same-site'), 403),
    (dict(origin='http://site.example'), 403),
    (dict(x_cdm_token='x' * 22), 403),
  ],
)
def test_no_other_site_reaches_it(site, headers, status):
  for path, method in (
    ('/pictures', 'POST'), ('/entries/x/stop', 'POST'), ('/entries/x', 'DELETE')
  ):  # fmt: skip
    assert post(site, path, PICTURE, method, **headers)[0] == status


@pytest.mark.parametrize(
  'key', ['x' * 22, '../..', '%2e%2e%2f%2e%2e', '.', 'x' * 21 + '/']
)
def test_only_keys_that_were_given_name_something(site, key):
  for path in ('', '/events', '/media/overview.png', '/files/0'):
    status, _, body = served.ask(site[0], f'/entries/{key}{path}')
    assert status == 404 and b'root' not in body


def test_only_files_that_the_worker_named_are_sent(site):
  key = given(site)
  over(site, key)
  for name in ('original', 'overview.png/..', '..%2foriginal', 'made.png'):
    assert served.ask(site[0], f'/entries/{key}/media/{name}')[0] == 404
  for number in ('0', '7', '-1', 'x'):
    assert served.ask(site[0], f'/entries/{key}/files/{number}')[0] == 404


@pytest.mark.parametrize(
  'name, kept',
  [
    ('../../etc/passwd', 'passwd'),
    ('C:\\pictures\\cat.png', 'cat.png'),
    ('a\r\nSet-Cookie: x=1.png', 'aSet-Cookie x=1.png'),
    ('\u202egnp.exe', 'gnp.exe'),
    ('<b>"cat"</b>.png', 'b.png'),
    ('...', 'picture'),
    ('', 'picture'),
    ('x' * 500, 'x' * 120),
  ],
)
def test_a_name_becomes_no_path_and_no_header(name, kept):
  assert kept_entries.cleaned(name) == kept


def test_a_large_or_slow_or_empty_body_is_refused(site):
  """By its length before it comes, and by what comes whatever it says."""
  host, csrf, app = site
  before = set(os.listdir(app.entries._folder))
  assert post(site, '/pictures', b'', content_length='67108865')[0] == 413
  connection = http.client.HTTPConnection(host, timeout=20)
  chunks = (b'x' * 10_000 for _ in range(11))
  headers = {'sec-fetch-site': 'same-origin', 'x-cdm-token': csrf}
  connection.request('POST', '/pictures', chunks, headers, encode_chunked=True)
  assert connection.getresponse().status == 413
  connection.close()
  assert post(site, '/pictures', b'')[0] == 400
  with socket.create_connection(host.split(':')) as slow:
    head = ''.join(f'{k}: {v}\r\n' for k, v in headers.items())
    slow.sendall(
      f'POST /pictures HTTP/1.1\r\nhost: {host}\r\n{head}'
      'content-length: 100\r\n\r\nx'.encode()
    )
    assert slow.recv(100).startswith(b'HTTP/1.1 408 ')
  key = given(site)
  long = {**PART, 'x': 'x' * 20_000}
  assert post(site, f'/entries/{key}/part', json.dumps(long))[0] == 413
  # Nothing of them is kept.
  assert set(os.listdir(app.entries._folder)) == before | {key}


@pytest.mark.parametrize(
  'path, change',
  [
    ('part', dict(top=-1)),
    ('part', dict(height=0)),
    ('part', dict(width=10**9)),
    ('part', dict(left='0')),
    ('part', dict(scale=float('nan'))),
    ('part', dict(scale=17)),
    ('part', dict(seeds=9)),
    ('part', dict(seed=2**32)),
    ('part', dict(seed=True)),
    ('file', dict(format='eps')),
    ('file', dict(format='../x.png')),
    ('file', dict(detail=1.5)),
    ('file', dict(scale=0)),
  ],
)
def test_values_out_of_bounds_never_reach_the_worker(site, path, change):
  key = given(site)
  body = {**(PART if path == 'part' else FILE), **change}
  status, _, reply = post(site, f'/entries/{key}/{path}', body)
  assert status == 422 and next(iter(change)).encode() in reply
  assert post(site, f'/entries/{key}', None, 'DELETE')[0] == 204
  assert served.ask(site[0], f'/entries/{key}')[0] == 404


def test_ten_pictures_at_once_a_cancel_and_a_removal(tmp_path):
  """One is worked on, four wait, and five are told to come again."""
  command = served_pictures.stand_in('photographs', 'slow')
  with served_pictures.running(command, tmp_path) as running:
    site = running[0], running[2], running[3]
    keys = [given(site) for _ in range(10) if not time.sleep(0.01)]
    for key in keys:
      over(site, key)
    replies = [post(site, f'/entries/{key}/part', PART) for key in keys]
    assert [reply[0] for reply in replies] == [202] * 5 + [429] * 5
    assert int(replies[-1][1]['retry-after']) > 0
    # So are new pictures, before their bytes come.
    assert post(site, '/pictures', PICTURE)[0] == 429
    assert json.loads(replies[4][2])['before'] == 4

    def state(key):
      return json.loads(served.ask(site[0], f'/entries/{key}')[2])

    until(lambda: state(keys[0])['seconds_left'] is not None)
    assert 0 < state(keys[0])['done'] < state(keys[0])['total'] == 1000
    # One that waits, one that is worked on; the next one begins.
    post(site, f'/entries/{keys[2]}/stop')
    assert state(keys[2])['state'] == 'cancelled'
    post(site, f'/entries/{keys[0]}/stop')
    until(lambda: state(keys[1])['state'] == 'working')
    assert state(keys[0])['state'] == 'cancelled'
    assert post(site, f'/entries/{keys[1]}', None, 'DELETE')[0] == 204
    until(lambda: state(keys[3])['state'] == 'working')
    assert served.ask(site[0], f'/entries/{keys[1]}')[0] == 404
    assert not (tmp_path / keys[1]).exists()


def queue(mode, limits):
  return task_queue.TaskQueue(
    served_pictures.stand_in('photographs', mode), limits
  )


def done(made, folder, task='part', cancel=False):
  """-> a task that is over."""
  task = task_queue.Task(
    {'task': task, 'folder': str(folder), **PART, 'part': PART}, lambda x: None
  )
  made.put(task)
  if cancel:
    until(lambda: task.done)
    made.cancel(task)
  until(lambda: task.is_over)
  return task


def test_a_worker_that_does_not_listen_is_replaced(tmp_path, monkeypatch):
  """By a cancellation, and by the time that a task may take."""
  monkeypatch.setattr(task_queue, 'GRACE_SECONDS', 0.05)
  made = queue('deaf', ServingLimits(task_seconds=0.3))
  try:
    first = made.worker_pid
    assert done(made, tmp_path, cancel=True).state == 'cancelled'
    assert done(made, tmp_path, 'open').state == 'done'
    assert made.worker_pid != first
    with pytest.raises(ProcessLookupError):
      os.kill(first, 0)
    late = done(made, tmp_path)
    assert late.state == 'failed' and 'longer than 0.005 min' in late.error
  finally:
    made.close()


def test_a_worker_that_dies_fails_its_task_alone(tmp_path):
  made = queue('dies', ServingLimits())
  try:
    task = done(made, tmp_path)
    assert task.state == 'failed' and 'want of memory' in task.error
    assert done(made, tmp_path, 'open').state == 'done'
  finally:
    made.close()
  with pytest.raises(ValueError, match='There is no such stage'):
    queue('refuses', ServingLimits())


def test_old_pictures_go_and_a_full_disk_is_said(site, tmp_path):
  limits = ServingLimits(kept_seconds=0.0, folder_bytes=5000, entries=2)
  command = served_pictures.stand_in('photographs', 'good')
  with served_pictures.running(command, tmp_path, limits) as running:
    own = running[0], running[2], running[3]
    key = given(own)
    over(own, key)
    status, _, reply = post(own, '/pictures', b'x' * 6000)
    assert status == 507 and b'no room' in reply
    over(own, given(own))
    status, _, reply = post(own, '/pictures', PICTURE)
    assert status == 429 and b'remove some' in reply
    (tmp_path / ('x' * 22)).mkdir()  # A task wrote on after its removal.
    running[3].entries.expire()
    assert served.ask(own[0], f'/entries/{key}')[0] == 404
    assert os.listdir(tmp_path) == []


def test_the_folder_is_private_and_one_of_a_killed_process_goes(tmp_path):
  code = (
    'import sys\n'
    'from cdm.cli import private_folder\n'
    'with private_folder.made(sys.argv[1]) as path:\n'
    '  (path / "picture").touch()\n'
    '  print(path, flush=True)\n'
    '  sys.stdin.read()\n'
  )
  other = subprocess.Popen(
    [sys.executable, '-c', code, str(tmp_path)],
    cwd=served.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    encoding='utf-8',
  )
  left = other.stdout.readline().strip()
  assert stat.S_IMODE(os.stat(left).st_mode) == 0o700
  # It is spared while its process lives, and so is what is not ours to erase.
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  (tmp_path / f'{private_folder.PREFIX}link').symlink_to(elsewhere)
  private_folder.erase_abandoned(str(tmp_path))
  assert os.path.exists(left)
  other.send_signal(signal.SIGKILL)
  other.wait()
  with private_folder.made(str(tmp_path)) as own:
    assert not os.path.exists(left) and elsewhere.is_dir()
    (own / 'picture').touch()
  assert not own.exists()
  other.stdin.close()
  other.stdout.close()


@pytest.mark.parametrize(
  'words, said',
  [
    (['--workdir=x', '--samples=y'], 'give one of the two'),
    (['--workdir=x', '--memory=0'], r'--memory=0: give a number above 0'),
    (['--workdir=x', '--host=0.0.0.0'], 'needs a token'),
    (['--samples=x', '--batch_per_device=2'], 'leave it out'),
  ],
)
def test_what_cannot_be_served_is_said_at_once(words, said):
  from cdm.cli import main

  with pytest.raises(ValueError, match=said):
    serve.run(main.parse(['serve', *words]))


def command(tmp_path, *words):
  """Starts `cdm serve` with a worker that stands in. -> (process, link)."""
  worker = served_pictures.stand_in('photographs', 'slow')
  code = (
    'import sys\n'
    'from cdm.cli import main\n'
    'from cdm.cli.commands import serve\n'
    f'serve._command = lambda args: lambda limits: {worker!r}\n'
    'sys.exit(main.main(sys.argv[1:]))\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code, 'serve', '--no_browser', *words],
    cwd=served.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    encoding='utf-8',
    # A server that started JAX would fail.
    env={**os.environ, 'TMPDIR': str(tmp_path), 'JAX_PLATFORMS': 'none'},
  )
  lines = ''
  while not (found := re.search(r'Open http://(\S+?)/\n', lines)):
    line = process.stdout.readline()
    assert line, lines  # It has ended.
    lines += line
  return process, found[1]


def test_a_killed_server_leaves_no_worker_and_the_next_start_no_picture(
  tmp_path,
):
  process, host = command(tmp_path)
  about = json.loads(served.ask(host, '/about')[2])
  assert host.startswith('127.0.0.1:')
  site = host, about['token'], None
  key = given(site)
  over(site, key)
  post(site, f'/entries/{key}/part', PART)
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()

  def ended():
    try:
      os.kill(about['pid'], 0)
    except ProcessLookupError:
      return True
    with open(f'/proc/{about["pid"]}/stat', encoding='ascii') as file:
      return file.read().rsplit(')')[1].split()[0] == 'Z'  # nobody reaps it

  until(ended)
  assert len(list(tmp_path.glob(f'{private_folder.PREFIX}*/{key}'))) == 1
  process, host = command(tmp_path)
  assert not list(tmp_path.glob(f'*/{key}'))
  process.send_signal(signal.SIGTERM)
  out = process.communicate(timeout=30)[0]
  assert process.returncode == 0, out
  assert not list(tmp_path.glob(f'{private_folder.PREFIX}*'))
