"""Files are fetched once, checked, and continued; from a server in a thread."""

import hashlib
import http.server
import threading
from concurrent import futures

import numpy as np
import pytest

from cdm.models.pretrained import download

DATA = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
  ranges, breaks_after, ignores_range = [], None, False

  def do_GET(self):
    wanted = self.headers.get('Range')
    self.ranges.append(wanted)
    start = int(wanted[6:-1]) if wanted and not self.ignores_range else 0
    if start >= len(DATA):
      self.send_error(416)
      return
    self.send_response(206 if start else 200)
    self.send_header('Content-Length', str(len(DATA) - start))
    self.end_headers()
    self.wfile.write(DATA[start : self.breaks_after])

  def log_message(self, *_):
    pass


@pytest.fixture
def url(monkeypatch):
  monkeypatch.setattr(Server, 'ranges', [])
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/weights.pth'
    server.shutdown()


def test_a_file_is_fetched_once(url, tmp_path):
  path = download.fetch(url, SHA256[:8], where=tmp_path / 'new')
  assert path.read_bytes() == DATA
  assert [p.name for p in path.parent.iterdir()] == ['weights.pth']
  assert download.fetch(url, SHA256, where=tmp_path / 'new') == path
  assert Server.ranges == [None]


def test_what_broke_off_is_continued(url, tmp_path, monkeypatch):
  monkeypatch.setattr(Server, 'breaks_after', 1_500_000)
  with pytest.raises(OSError, match='broke off after 1,500,000 of 3,000,000'):
    download.fetch(url, SHA256, where=tmp_path)
  names = {p.name for p in tmp_path.iterdir()}
  assert names - {'.weights.pth.lock'} == {'weights.pth.part'}
  monkeypatch.setattr(Server, 'breaks_after', None)
  assert download.fetch(url, SHA256, where=tmp_path).read_bytes() == DATA
  assert Server.ranges == [None, 'bytes=1500000-']


def test_several_at_once_fetch_it_once(url, tmp_path):
  with futures.ThreadPoolExecutor(4) as pool:
    tasks = [
      pool.submit(download.fetch, url, SHA256, where=tmp_path) for _ in range(4)
    ]
    assert {task.result().read_bytes() for task in tasks} == {DATA}
  assert Server.ranges == [None]


def test_a_server_that_begins_anew_is_borne(url, tmp_path, monkeypatch):
  (tmp_path / 'weights.pth.part').write_bytes(DATA[:1000])
  monkeypatch.setattr(Server, 'ignores_range', True)
  assert download.fetch(url, SHA256, where=tmp_path).read_bytes() == DATA


def test_a_part_that_is_whole_already_is_taken(url, tmp_path):
  (tmp_path / 'weights.pth.part').write_bytes(DATA)
  assert download.fetch(url, SHA256, where=tmp_path).read_bytes() == DATA


def test_another_file_is_refused_and_not_kept(url, tmp_path):
  with pytest.raises(ValueError, match=f'{SHA256}, expected 0123: it is dam'):
    download.fetch(url, '0123', where=tmp_path)
  assert not list(tmp_path.glob('weights*'))
  (tmp_path / 'weights.pth').write_bytes(b'old')
  with pytest.raises(ValueError, match='weights.pth has SHA-256 .* Remove it'):
    download.fetch(url, SHA256, where=tmp_path)


def test_without_a_network_it_is_said_what_to_put_where(tmp_path):
  with pytest.raises(OSError) as caught:
    download.fetch('http://127.0.0.1:9/w.pth', 'abcd', where=tmp_path)
  told = str(caught.value)
  assert f'put it at {tmp_path / "w.pth"} (SHA-256 abcd...)' in told
  assert 'Fetch http://127.0.0.1:9/w.pth on a machine with a network' in told
  assert '--weights' in told
