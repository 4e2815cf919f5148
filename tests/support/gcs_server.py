"""A small server of Google Cloud Storage's JSON API, for the real clients.

It holds objects in memory: uploads (simple, multipart, resumable), downloads
with ranges, listings with prefix, delimiter and pages, deletions, copies, and
conditions on an object's generation. `environment` points gcsfs, TensorStore
and Google's own client to it.
"""

import base64
import contextlib
import email
import functools
import http.server
import importlib.util
import itertools
import json
import os
import re
import struct
import threading
import time
import urllib.parse
from unittest import mock

import pytest

from cdm.distributed import bucket_folders

# The clients are an extra of cdm. gcsfs is not imported before `used`: it reads
# the environment then.
if importlib.util.find_spec('gcsfs') is None:
  pytest.skip('gcsfs is not installed', allow_module_level=True)
google_crc32c = pytest.importorskip('google_crc32c')

PAGE = 50  # objects of one answer to a listing; real servers send 1000


class Object:
  """One generation of an object."""

  def __init__(self, data, generation):
    self.data, self.generation = data, generation
    self.time = time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime())

  def resource(self, bucket, name):
    crc = struct.pack('>I', google_crc32c.value(self.data))
    return {
      'kind': 'storage#object',
      'id': f'{bucket}/{name}/{self.generation}',
      'name': name,
      'bucket': bucket,
      'generation': str(self.generation),
      'metageneration': '1',
      'size': str(len(self.data)),
      'crc32c': base64.b64encode(crc).decode(),
      'contentType': 'application/octet-stream',
      'storageClass': 'STANDARD',
      'timeCreated': self.time,
      'updated': self.time,
    }


class Server(http.server.ThreadingHTTPServer):
  """The server; use as a context manager.

  Attributes:
    objects: {(bucket, name): Object}.
    buckets: names of the buckets that exist.
    fail_every: every n-th request is answered with 503; 0 answers all.
    requests: [(method, path)] of the requests so far.
    on_write: called with the bucket and the name of what was written.
  """

  daemon_threads = True
  request_queue_size = 64

  def __init__(self, *buckets):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.objects, self.buckets = {}, set(buckets)
    self.fail_every, self.requests = 0, []
    self.on_write = lambda bucket, name: None
    self.uploads, self.lock = {}, threading.RLock()
    self.generations = itertools.count(1_700_000_000_000_000)
    self.url = f'http://127.0.0.1:{self.server_address[1]}'
    threading.Thread(target=self.serve_forever, daemon=True).start()

  def environment(self):
    """-> {name: value}: what makes the clients use this server alone."""
    return {
      'STORAGE_EMULATOR_HOST': self.url,
      'TENSORSTORE_GCS_HTTP_URL': self.url,
      'CLOUD_STORAGE_EMULATOR_ENDPOINT': self.url,  # array_record
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'token',
      'GOOGLE_CLOUD_PROJECT': 'project',
      'FSSPEC_GCS_TOKEN': 'anon',
      # It asks the real service for a bucket's layout, by gRPC.
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
      'NO_GCE_CHECK': 'true',
    }

  def handle_error(self, *_):
    """Says nothing of clients that have gone."""

  def names(self, bucket, prefix=''):
    """-> the names of the objects whose names begin so, in order."""
    with self.lock:
      return sorted(
        name
        for where, name in self.objects
        if where == bucket and name.startswith(prefix)
      )

  def read(self, bucket, name):
    """-> bytes of an object."""
    return self.objects[bucket, name].data

  def put(self, bucket, name, data):
    """Stores an object; returns it."""
    with self.lock:
      made = Object(bytes(data), next(self.generations))
      self.objects[bucket, name] = made
      self.on_write(bucket, name)
      return made

  def server_close(self):
    self.shutdown()
    super().server_close()


class _Answer(Exception):
  """Ends the handling of a request with a status and a JSON body."""

  def __init__(self, code, message=''):
    super().__init__(message)
    self.code, self.message = code, message


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  disable_nagle_algorithm = True  # or every answer takes 40 ms

  def log_message(self, *_):
    pass

  def do_GET(self):
    self.answer()

  do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

  def answer(self):
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    if 'chunked' in self.headers.get('Transfer-Encoding', ''):
      body = b''
      while size := int(self.rfile.readline(), 16):
        body += self.rfile.read(size)
        self.rfile.readline()
      self.rfile.readline()
    else:
      body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
    try:
      with self.server.lock:
        self.server.requests.append((self.command, url.path))
        number, every = len(self.server.requests), self.server.fail_every
        if every and number % every == 0:
          raise _Answer(503, 'Service Unavailable')
        self.route(url.path, query, body)
    except _Answer as answer:
      error = {'code': answer.code, 'message': answer.message}
      error['errors'] = [{'message': answer.message, 'reason': 'error'}]
      # A body after 304 would be read as the next answer.
      body = b'' if answer.code == 304 else json.dumps({'error': error})
      self.send(answer.code, body and body.encode())

  def send(self, code, body=b'', **headers):
    kind = 'application/json; charset=UTF-8'
    headers = {'Content-Type': kind} | {
      key.replace('_', '-'): value for key, value in headers.items()
    }
    self.send_response(code)
    for key, value in headers.items():
      self.send_header(key, value)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def send_json(self, value, code=200, **headers):
    self.send(code, json.dumps(value).encode(), **headers)

  def route(self, path, query, body):
    match = re.fullmatch(
      r'(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/([^/]+)(/.*)?)?)?/?',
      path,
    )
    if match is None:
      raise _Answer(404, f'no such path: {path}')
    kind, bucket, name, rest = match.groups()
    name = name and urllib.parse.unquote(name)
    if bucket not in self.server.buckets:
      raise _Answer(404, 'The specified bucket does not exist.')
    if kind == '/upload':
      self.upload(bucket, query, body)
    elif rest:
      self.copy(bucket, name, rest)
    elif name is None and '/o' not in path.partition(f'/b/{bucket}')[2]:
      self.send_json({'kind': 'storage#bucket', 'name': bucket, 'id': bucket})
    elif name is None:
      self.list(bucket, query)
    elif self.command == 'DELETE':
      self.check(bucket, name, query, must_exist=True)
      del self.server.objects[bucket, name]
      self.send(204)
    elif query.get('alt') == 'media':
      self.download(bucket, name, query)
    else:
      found = self.check(bucket, name, query, must_exist=True)
      self.send_json(found.resource(bucket, name))

  def check(self, bucket, name, query, *, must_exist=False):
    """-> the object or None; answers 404, 412 or 304 instead."""
    found = self.server.objects.get((bucket, name))
    generation = found.generation if found else 0
    wanted = query.get('ifGenerationMatch')
    if wanted is not None and int(wanted) != generation:
      raise _Answer(412, 'At least one of the pre-conditions did not hold.')
    if must_exist and found is None:
      raise _Answer(404, f'No such object: {bucket}/{name}')
    unwanted = query.get('ifGenerationNotMatch')
    if unwanted is not None and int(unwanted) == generation:
      raise _Answer(304)
    return found

  def upload(self, bucket, query, body):
    kind, name = query.get('uploadType'), query.get('name')
    if kind == 'multipart':
      header = f'Content-Type: {self.headers["Content-Type"]}\n\n'.encode()
      # The parts are cut out by hand: `email` would change the line ends.
      boundary = email.message_from_bytes(header).get_boundary()
      _, meta, data, _ = body.split(b'--' + boundary.encode(), 3)
      meta = json.loads(re.split(rb'\r?\n\r?\n', meta, maxsplit=1)[1])
      data = re.split(rb'\r?\n\r?\n', data, maxsplit=1)[1]
      data = re.sub(rb'\r?\n\Z', b'', data)
      name = name or meta['name']
    elif kind == 'resumable' and 'upload_id' not in query:
      name = name or json.loads(body)['name']
      self.check(bucket, name, query)
      key = str(len(self.server.uploads))
      self.server.uploads[key] = (name, bytearray(), query)
      where = f'{self.server.url}/upload/storage/v1/b/{bucket}/o'
      where += f'?uploadType=resumable&name={name}&upload_id={key}'
      return self.send_json({}, Location=where)
    elif kind == 'resumable':
      name, data, query = self.server.uploads[query['upload_id']]
      data += body
      whole = self.headers.get('Content-Range', 'bytes */1').rpartition('/')[2]
      if not whole.isdigit() or len(data) < int(whole):
        return self.send(308, Range=f'bytes=0-{len(data) - 1}')
    else:
      data = body
    self.check(bucket, name, query)
    made = self.server.put(bucket, name, data)
    self.send_json(
      made.resource(bucket, name), x_goog_generation=str(made.generation)
    )

  def download(self, bucket, name, query):
    found = self.check(bucket, name, query, must_exist=True)
    data, code, headers = found.data, 200, {}
    match = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
    if match:
      first, last = match.groups()
      if not first:  # the last bytes
        begin, end = max(len(data) - int(last), 0), len(data)
      else:
        begin = int(first)
        end = min(int(last) + 1 if last else len(data), len(data))
      if begin >= end:
        raise _Answer(416, 'The requested range cannot be satisfied.')
      headers['Content-Range'] = f'bytes {begin}-{end - 1}/{len(data)}'
      data, code = data[begin:end], 206
    self.send(
      code,
      data,
      Content_Type='application/octet-stream',
      x_goog_generation=str(found.generation),
      x_goog_metageneration='1',
      x_goog_stored_content_length=str(len(found.data)),
      x_goog_hash='crc32c=' + found.resource(bucket, name)['crc32c'],
      **headers,
    )

  def list(self, bucket, query):
    prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
    start = query.get('startOffset', '')
    token = query.get('pageToken', '')
    entries = {}
    for name in self.server.names(bucket, prefix):
      if name < start or name >= query.get('endOffset', '\U0010ffff'):
        continue
      rest = name[len(prefix) :]
      if delimiter and delimiter in rest:
        entries[prefix + rest.partition(delimiter)[0] + delimiter] = None
      else:
        entries[name] = self.server.objects[bucket, name]
    names = [name for name in sorted(entries) if name > token]
    size = min(int(query.get('maxResults', PAGE)), PAGE)
    page, more = names[:size], names[size:]
    answer = {'kind': 'storage#objects'}
    found = [n for n in page if entries[n] is not None]
    answer['items'] = [entries[n].resource(bucket, n) for n in found]
    answer['prefixes'] = [n for n in page if entries[n] is None]
    if more:
      answer['nextPageToken'] = page[-1]
    self.send_json({k: v for k, v in answer.items() if v})

  def copy(self, bucket, name, rest):
    match = re.fullmatch(r'/moveTo/o/([^/]+)', rest)
    if match is not None:
      target = urllib.parse.unquote(match[1])
      moved = self.check(bucket, name, {}, must_exist=True)
      made = self.server.put(bucket, target, moved.data)
      del self.server.objects[bucket, name]
      return self.send_json(made.resource(bucket, target))
    match = re.fullmatch(r'/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)', rest)
    if match is None:
      raise _Answer(404, f'no such action: {rest}')
    found = self.check(bucket, name, {}, must_exist=True)
    to, target = match[1], urllib.parse.unquote(match[2])
    made = self.server.put(to, target, found.data).resource(to, target)
    size = str(len(found.data))
    self.send_json(
      made
      if 'copyTo' in rest
      else {
        'kind': 'storage#rewriteResponse',
        'done': True,
        'totalBytesRewritten': size,
        'objectSize': size,
        'resource': made,
      }
    )


@functools.cache
def server():
  """-> the one Server of this process, as clients remember where it is.

  It has the bucket `bucket`.
  """
  made = Server('bucket')
  import fsspec.config

  # fsspec read the environment when it was imported.
  fsspec.config.conf.setdefault('gcs', {})['token'] = 'anon'
  return made


@contextlib.contextmanager
def used(cache):
  """Context manager: gs:// means `server()`, which it yields, empty.

  Args:
    cache: folder of the user's cache, where mirrors are.
  """
  cloud = server()
  cloud.objects.clear()
  cloud.fail_every, cloud.on_write = 0, lambda bucket, name: None
  environment = cloud.environment() | {
    'XDG_CACHE_HOME': str(cache),
    'EPATH_USE_TF': 'false',
  }
  with mock.patch.dict(os.environ, environment):
    try:
      yield cloud
    finally:
      bucket_folders._mirrors.clear()
      cloud.fail_every, cloud.on_write = 0, lambda bucket, name: None
