"""Certificates where Python has none; no proxy on the way to this machine."""

import http.server
import shutil
import ssl
import subprocess
import threading
import urllib.request

import certifi
import pytest

from cdm.models.pretrained import connections, download

DATA = b'a weight'
SHA256 = 'a' * 64


class Server(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    self.send_response(200)
    self.send_header('Content-Length', str(len(DATA)))
    self.end_headers()
    self.wfile.write(DATA)

  def log_message(self, *_):
    pass


def serve(server):
  threading.Thread(target=server.serve_forever, daemon=True).start()
  return server


@pytest.fixture
def no_certificates(monkeypatch, tmp_path):
  """Python as python.org's is on a Mac, or as in a slim container."""
  empty = tmp_path / 'empty'
  empty.mkdir()
  monkeypatch.setenv('SSL_CERT_FILE', str(tmp_path / 'missing.pem'))
  monkeypatch.setenv('SSL_CERT_DIR', str(empty))


@pytest.fixture(scope='module')
def certificate(tmp_path_factory):
  """-> the file with the certificate of 127.0.0.1 and its key."""
  if not shutil.which('openssl'):
    pytest.skip('openssl is not installed, which makes the certificate')
  folder = tmp_path_factory.mktemp('tls')
  pem, key = folder / 'cert.pem', folder / 'key.pem'
  subprocess.run(
    ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2']
    + ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
    + ['-keyout', str(key), '-out', str(pem)],
    check=True,
    capture_output=True,
  )
  return pem, key


@pytest.fixture
def secure_url(certificate):
  context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  context.load_cert_chain(*certificate)
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
    server.socket = context.wrap_socket(server.socket, server_side=True)
    yield f'https://127.0.0.1:{serve(server).server_port}/w.pth'
    server.shutdown()


def fetched(url):
  request = urllib.request.Request(url)
  with connections.open_url(request, timeout=20) as answer:
    return answer.read()


def test_certifi_serves_where_python_has_no_certificates(
  no_certificates, certificate, secure_url, monkeypatch
):
  assert connections.own_certificates() == certifi.where()
  monkeypatch.setattr(certifi, 'where', lambda: str(certificate[0]))
  assert fetched(secure_url) == DATA


def test_the_certificates_of_the_machine_come_first(
  certificate, secure_url, monkeypatch
):
  """An administrator may have added one to them."""
  monkeypatch.setenv('SSL_CERT_FILE', str(certificate[0]))
  assert connections.own_certificates() is None
  assert fetched(secure_url) == DATA


def test_whose_certificates_were_taken_is_said_if_they_do_not_do(
  no_certificates, secure_url, tmp_path
):
  with pytest.raises(OSError, match='w.pth cannot be fetched') as caught:
    download.fetch(secure_url, SHA256, where=tmp_path / 'weights')
  told = str(caught.value)
  assert f'package certifi, {certifi.where()}, as this Python' in told
  assert 'self-signed' in told.replace('self signed', 'self-signed')
  assert 'SSL_CERT_FILE=FILE' in told and '\n' not in told


@pytest.mark.parametrize('name', ['http_proxy', 'all_proxy', 'HTTP_PROXY'])
def test_this_machine_is_never_reached_through_a_proxy(name, monkeypatch):
  for other in ('no_proxy', 'NO_PROXY'):
    monkeypatch.delenv(other, raising=False)
  monkeypatch.setenv(name, 'http://127.0.0.1:9')
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
    port = serve(server).server_port
    assert fetched(f'http://127.0.0.1:{port}/') == DATA
    assert fetched(f'http://localhost:{port}/') == DATA
    server.shutdown()


def test_other_machines_are_reached_through_the_proxy(monkeypatch):
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
    proxy = f'http://127.0.0.1:{serve(server).server_port}'
    monkeypatch.setenv('http_proxy', proxy)
    monkeypatch.setenv('no_proxy', '')
    assert fetched('http://weights.invalid/w.pth') == DATA
    server.shutdown()
