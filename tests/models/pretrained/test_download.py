"""Files are fetched once, checked, and continued; from a server in a thread."""

import hashlib
import http.server
import os
import re
import shutil
import threading
import time
from concurrent import futures

import numpy as np
import pytest

from cdm.distributed import user_cache
from cdm.models import lpips, resnet
from cdm.models.pretrained import download, inception

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
  path = download.fetch(url, SHA256, where=tmp_path / 'new')
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


def test_a_lock_that_was_removed_meanwhile_is_held_by_nobody(tmp_path):
  """Three take the same lock in turn; never are two inside at once."""
  lock, inside, most = tmp_path / '.lock', [], []
  first_waits = threading.Barrier(2)

  def enter(first):
    with download._alone(lock):
      inside.append(1)
      if first:
        first_waits.wait()
        time.sleep(0.2)  # The second one waits for the file of the first.
      most.append(len(inside))
      time.sleep(0.1)
      inside.pop()

  threads = [threading.Thread(target=enter, args=(n == 0,)) for n in range(3)]
  threads[0].start()
  first_waits.wait()
  threads[1].start()
  # The third comes when the first has removed the file that the second has.
  while lock.exists() and threads[0].is_alive():
    time.sleep(0.001)
  threads[2].start()
  for thread in threads:
    thread.join()
  assert most == [1, 1, 1]
  assert not list(tmp_path.iterdir())


def test_a_read_only_or_full_cache_is_read_and_another_is_written(
  url, tmp_path, monkeypatch, capsys
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'full'))
  monkeypatch.setenv('TMPDIR', str(tmp_path))
  usual, full = shutil.disk_usage(tmp_path), str(tmp_path / 'full')
  monkeypatch.setattr(
    shutil,
    'disk_usage',
    lambda path: (
      usual._replace(free=0) if str(path).startswith(full) else usual
    ),
  )
  user_cache.warn.cache_clear()
  path = download.fetch(url, SHA256)
  assert path == tmp_path / f'cdm-{os.getuid()}/.cache/cdm/weights/weights.pth'
  warned = capsys.readouterr().err
  assert warned.count('cdm: warning: the cache ') == 1
  assert 'is full (0 MiB are free)' in warned
  here = tmp_path / 'full' / 'cdm' / 'weights' / 'weights.pth'
  path.rename(here)
  assert download.fetch(url, SHA256) == here


@pytest.mark.parametrize(
  'digest',
  [inception.SHA256, resnet.SHA256]
  + [*lpips.BACKBONE_SHA256.values(), *lpips.HEAD_SHA256.values()],
)
def test_every_published_file_is_known_by_its_whole_checksum(digest):
  assert re.fullmatch('[0-9a-f]{64}', digest)


def test_the_checksums_begin_as_the_files_are_named():
  for name, url in lpips.BACKBONE_URLS.items():
    assert url.endswith(f'-{lpips.BACKBONE_SHA256[name][:8]}.pth')
  assert resnet.URL.endswith(f'-{resnet.SHA256[:8]}.pth')


def test_a_server_that_begins_anew_is_borne(url, tmp_path, monkeypatch):
  (tmp_path / 'weights.pth.part').write_bytes(DATA[:1000])
  monkeypatch.setattr(Server, 'ignores_range', True)
  assert download.fetch(url, SHA256, where=tmp_path).read_bytes() == DATA


def test_a_part_that_is_whole_already_is_taken(url, tmp_path):
  (tmp_path / 'weights.pth.part').write_bytes(DATA)
  assert download.fetch(url, SHA256, where=tmp_path).read_bytes() == DATA


def test_another_file_is_refused_and_not_kept(url, tmp_path):
  with pytest.raises(ValueError, match=f'{SHA256} instead of {SHA256[:8]}:'):
    # The first digits alone are no proof.
    download.fetch(url, SHA256[:8], where=tmp_path)
  assert not list(tmp_path.glob('weights*'))
  (tmp_path / 'weights.pth').write_bytes(b'old')
  with pytest.raises(ValueError, match='weights.pth has SHA-256 .* Remove it'):
    download.fetch(url, SHA256, where=tmp_path)


def test_without_a_network_it_is_said_what_to_put_where(tmp_path):
  with pytest.raises(OSError) as caught:
    download.fetch('http://127.0.0.1:9/w.pth', 'abcd', where=tmp_path)
  told = str(caught.value)
  assert f'put it at {tmp_path / "w.pth"} (SHA-256 abcd)' in told
  assert 'Fetch http://127.0.0.1:9/w.pth on a machine with a network' in told
  assert '--weights' in told
