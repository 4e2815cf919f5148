"""Who may ask a server of this machine, and what it keeps.

Each point of the security list has its test here: loopback or a token, Host
header, no CORS, same origin and token for changes, sizes, times, numbers, names
of files, policy, nothing personal.
"""

import json
import signal
import socket

import pytest
from support import served

from cdm.cli.web import local_server, request_guard
from cdm.cli.web.request_guard import Limits
from cdm.evaluation.human import trial_lists
from cdm.evaluation.human.study_file import ANSWERS, MEDIA, PERSONS

pytest.importorskip('starlette', reason='needs the extra web')
pytest.importorskip('uvicorn', reason='needs the extra web')

OWN = {'sec_fetch_site': 'same-origin'}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """-> (study, its folder); tests of this file only add answers to it."""
  where = tmp_path_factory.mktemp('served')
  return served.make(where), where / 'study'


@pytest.fixture(scope='module')
def site(made):
  with served.running(*made) as (host, _, csrf):
    yield host, csrf


def session(host, csrf, person=None):
  status, _, body = served.ask(
    *(host, '/session', 'POST', {'person': person}),
    **OWN,
    x_cdm_token=csrf,
  )
  assert status == 200, body
  return json.loads(body)


def answer(found, study, index, response=0):
  trial = found['trials'][index]
  return {
    'secret': found['person'],
    'answer': {
      **dict(study=study['id'], person='', list=0, trial_index=index),
      **dict(trial_type=trial['trial_type'], stimulus=trial['stimulus']),
      **dict(response=response, rt=900.5, time_elapsed=10, shown_ms=100.0),
      **dict(frames=6, hidden=False, zoom=3, device_pixel_ratio=1.5),
      'viewport': [800, 600],
    },
  }


def send(host, csrf, body):
  return served.ask(host, '/answers', 'POST', body, **OWN, x_cdm_token=csrf)


def test_the_page_its_pictures_and_its_policy(site, made):
  host, _ = site
  status, headers, body = served.ask(host, '/')
  assert status == 200 and b'<main>' in body
  assert headers['content-type'].startswith('text/html')
  assert "default-src 'self'" in headers['content-security-policy']
  assert "frame-ancestors 'none'" in headers['content-security-policy']
  assert headers['x-content-type-options'] == 'nosniff'
  assert headers['referrer-policy'] == 'no-referrer'
  assert headers['cache-control'] == 'no-store'
  assert not [h for h in headers if h.lower().startswith('access-control')]
  assert 'server' not in headers
  name = made[0]['items'][0]['pictures']['sr3']
  status, headers, body = served.ask(host, f'/media/{name}')
  assert body == (made[1] / MEDIA / name).read_bytes()
  assert headers['content-type'] == 'image/png'
  assert 'immutable' in headers['cache-control']


@pytest.mark.parametrize(
  'name',
  ['../study.json', '%2e%2e%2fstudy.json', '..%2f..%2fetc%2fpasswd', 32 * 'a'],
)
def test_only_the_study_s_own_pictures_have_names(site, name):
  status, _, body = served.ask(site[0], f'/media/{name}')
  assert status == 404 and b'seed' not in body and b'root' not in body


@pytest.mark.parametrize(
  'given, status',
  [
    ('localhost:1', 200),
    ('[::1]:80', 200),
    ('127.0.0.1', 200),
    ('rebound.example', 400),
    ('127.0.0.1.rebound.example', 400),
    ('localhost@rebound.example', 400),
    ('', 400),
  ],
)
def test_a_name_that_a_site_points_here_is_refused(site, given, status):
  assert served.ask(site[0], '/study', host=given)[0] == status


@pytest.mark.parametrize(
  'headers, status',
  [
    ({'sec_fetch_site': 'same-origin'}, 200),
    ({'origin': 'http://HOST'}, 200),  # a browser that sends no Sec-Fetch-Site
    ({}, 403),
    ({'sec_fetch_site': 'cross-site'}, 403),
    ({'sec_fetch_site': 'same-site'}, 403),
    ({'origin': 'http://site.example'}, 403),
    ({'origin': 'null'}, 403),
    ({'sec_fetch_site': 'same-origin', 'origin': 'http://site.example'}, 403),
  ],
)
def test_no_other_site_can_change_anything(site, headers, status):
  host, csrf = site
  given = {k: v.replace('HOST', host) for k, v in headers.items()}
  given |= {'x_cdm_token': csrf}
  asked = host, '/session', 'POST', {'person': 'x' * 22}
  assert served.ask(*asked, **given)[0] == status


@pytest.mark.parametrize('token', [None, '', 'x' * 22])
def test_a_change_needs_the_token_of_the_page(site, token):
  headers = {**OWN, **({} if token is None else {'x_cdm_token': token})}
  status, _, body = served.ask(site[0], '/session', 'POST', {}, **headers)
  assert status == 403 and b'load it again' in body
  assert served.ask(site[0], '/session')[0] == 405


def test_a_long_body_is_refused_before_and_while_it_comes(site):
  host, csrf = site
  status, _, _ = send(host, csrf, {'x': 'y' * 20_000})
  assert status == 413
  # At once, before any of it has come.
  name, port = host.split(':')
  with socket.create_connection((name, int(port)), timeout=20) as line:
    head = [
      *('POST /answers HTTP/1.1', f'Host: {host}', f'X-CDM-Token: {csrf}'),
      *('Sec-Fetch-Site: same-origin', 'Content-Length: 999999999', '', ''),
    ]
    line.sendall('\r\n'.join(head).encode())
    assert b' 413 ' in line.recv(1000)
  # Without a length, and endless.
  name, port = host.split(':')
  with socket.create_connection((name, int(port)), timeout=20) as line:
    head = [
      *('POST /answers HTTP/1.1', f'Host: {host}', f'X-CDM-Token: {csrf}'),
      *('Sec-Fetch-Site: same-origin', 'Transfer-Encoding: chunked', '', ''),
    ]
    line.sendall('\r\n'.join(head).encode())
    line.sendall(b'4000\r\n' + 0x4000 * b'x' + b'\r\n1\r\nx\r\n')
    assert b' 413 ' in line.recv(1000)


@pytest.mark.parametrize('body', ['[]', '{', '', '"x"', '[' * 9000])
def test_a_body_that_is_no_object_is_refused(site, body):
  assert send(*site, body)[0] == 400


def test_a_slow_request_is_ended(made, monkeypatch):
  from cdm.cli.web import patient_protocol

  monkeypatch.setattr(patient_protocol, 'HEAD_SECONDS', 0.2)
  with served.running(*made, limits=Limits(body_seconds=0.2)) as site:
    name, port = site[0].split(':')
    with socket.create_connection((name, int(port)), timeout=20) as line:
      assert line.recv(100) == b''  # after not a byte
    with socket.create_connection((name, int(port)), timeout=20) as line:
      line.sendall(b'GET / HT')  # and nothing more
      assert line.recv(100) == b''
    with socket.create_connection((name, int(port)), timeout=20) as line:
      line.sendall(
        f'POST /answers HTTP/1.1\r\nHost: {site[0]}\r\nX-CDM-Token: {site[2]}'
        '\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 9\r\n\r\n{'.encode()
      )
      assert b' 408 ' in line.recv(1000)


def test_too_many_requests_at_once_are_asked_to_wait(made):
  with served.running(*made, limits=Limits(requests=0)) as (host, *_):
    status, headers, _ = served.ask(host, '/')
    assert status == 429 and headers['retry-after'] == '2'


def test_other_machines_need_the_token(made):
  place = local_server.Place('0.0.0.0', 0, local_server.MADE)
  with served.running(*made, place=place) as (host, link, _):
    assert served.ask(host, '/')[0] == 403
    assert served.ask(host, '/?token=wrong-wrong-wrong')[0] == 403
    status, headers, _ = served.ask(host, '/?' + link.split('?')[1])
    assert status == 200
    cookie, *rest = headers['set-cookie'].split('; ')
    assert rest == ['HttpOnly', 'SameSite=Lax', 'Path=/']
    assert served.ask(host, '/study.js', cookie=cookie)[0] == 200
    # A name of the internet is refused even with it; an address is none.
    refused = served.ask(host, '/', cookie=cookie, host='rebound.example')
    assert refused[0] == 400
    assert served.ask(host, '/', cookie=cookie, host='192.0.2.7:8')[0] == 200


@pytest.mark.parametrize(
  'host, local',
  [
    *[('127.0.0.1', True), ('::1', True), ('localhost', True)],
    *[('0.0.0.0', False), ('::', False), ('192.0.2.7', False)],
  ],
)
def test_which_hosts_are_this_machine(host, local):
  assert local_server.is_local(host) is local
  if not local:
    with pytest.raises(ValueError, match='needs a token'):
      local_server.check(local_server.Place(host))


def test_a_taken_port_is_named():
  opened = local_server.listen(local_server.Place())
  port = opened.getsockname()[1]
  with pytest.raises(ValueError, match=f'--port={port} cannot be listened at'):
    local_server.listen(local_server.Place(port=port))
  opened.close()


def test_two_persons_answer_for_themselves_alone(site, made):
  study, folder = made
  host, csrf = site
  one, two = session(host, csrf), session(host, csrf)
  assert one['person'] != two['person'] and one['list'] != two['list']
  assert send(host, csrf, answer(one, study, 0))[0] == 200
  again = send(host, csrf, answer(one, study, 0, response=1))
  assert json.loads(again[2]) == {'kept': False}
  forged = answer(two, study, 1)
  forged['answer'] |= {'person': one['code'], 'ip': '192.0.2.1'}
  assert send(host, csrf, forged)[0] == 200
  rows = [
    json.loads(s)
    for s in (folder / ANSWERS).read_text(encoding='utf-8').splitlines()
  ]
  own = {one['code']: 0, two['code']: 1}
  rows = [r for r in rows if r['person'] in own]
  assert [r['trial_index'] for r in rows] == [0, 1]
  assert [own[r['person']] for r in rows] == [0, 1]
  text = (folder / ANSWERS).read_text(encoding='utf-8') + (
    folder / PERSONS
  ).read_text(encoding='utf-8')
  for secret in (one['person'], two['person'], '127.0.0.1', '192.0.2.1'):
    assert secret not in text
  assert session(host, csrf, one['person'])['answered'] == [0]
  unknown = answer(one, study, 2) | {'secret': one['code']}
  assert send(host, csrf, unknown)[0] == 409
  wrong = answer(one, study, 2, response=5)
  status, _, body = send(host, csrf, wrong)
  assert status == 422 and b'its response is 5' in body


def test_the_page_is_not_told_what_is_right(site, made):
  found = session(*site)
  trials = trial_lists.trial_list(made[0], found['list'])
  for sent, trial in zip(found['trials'], trials, strict=True):
    assert ('right' in sent) is (trial.part == 'practice')
  assert 'sr3' not in json.dumps(found)


def test_answers_survive_a_kill(tmp_path):
  study = served.make(tmp_path)
  folder = tmp_path / 'study'
  with served.command(folder) as (process, link):
    host = link.split('/')[2]
    csrf = json.loads(served.ask(host, '/study')[2])['token']
    found = session(host, csrf)
    assert send(host, csrf, answer(found, study, 0))[0] == 200
    process.send_signal(signal.SIGKILL)
    process.wait()
  rows = (folder / ANSWERS).read_text(encoding='utf-8').splitlines()
  assert [json.loads(row)['trial_index'] for row in rows] == [0]
  with served.running(study, folder) as (host, _, csrf):
    again = session(host, csrf, found['person'])
    assert (again['list'], again['answered']) == (found['list'], [0])


@pytest.mark.parametrize(
  'given, name',
  [('a:1', 'a'), ('[::1]:1', '::1'), ('a:x', ''), ('a/b', ''), ('u@a', '')],
)
def test_the_name_in_a_host_header(given, name):
  assert request_guard.host_name(given) == name
