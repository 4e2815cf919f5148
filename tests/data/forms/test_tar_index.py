"""Members of tars are found without reading them, and none is lost."""

import collections
import gzip
import io
import subprocess
import tarfile

import pytest
from support import small_archives as small

from cdm.data.files.damaged_file import DamagedFile
from cdm.data.forms import byte_ranges, tar_index

LONG = f'{"folder/" * 40}ü.png'


def scan(path, outer=None):
  left_out = collections.Counter()
  return list(tar_index.members(path, left_out, outer)), left_out


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'set.tar'


@pytest.mark.parametrize('format', [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_and_those_of_tars_inside_are_found_by_offset(path, format):
  files = {'./a.png': b'abc', LONG: b'', 'c.png': bytes(9999)}
  inner = small.tar_bytes(files, format)
  path.write_bytes(small.tar_bytes({'x': b'y', 'inner.tar': inner}, format))
  (_, outer), _ = scan(path)
  assert byte_ranges.read(path, outer.offset, outer.size) == inner
  found, left_out = scan(path, outer)
  assert [member.name for member in found] == ['a.png', LONG, 'c.png']
  for member, data in zip(found, files.values(), strict=True):
    assert byte_ranges.read(path, member.offset, member.size) == data
  assert not left_out


def test_what_is_no_file_is_counted(path):
  with tarfile.open(path, 'w') as tar:
    for type in (b'1', b'2', b'3', b'6', b'5', b'Z'):
      info = tarfile.TarInfo('x')
      info.type, info.linkname = type, '/etc/passwd'
      tar.addfile(info)
  found, left_out = scan(path)
  assert not found
  assert left_out == {
    'link': 2, 'device': 1, 'pipe': 1, 'member of an unknown kind': 1
  }  # fmt: skip


def sparse_header(data):
  """Marks the first member as one of GNU's sparse files."""
  data = bytearray(data)
  data[156:157] = b'S'
  data[148:156] = b'        '
  data[148:156] = b'%06o\0 ' % sum(data[:512])
  return bytes(data)


def test_sparse_files_are_left_out(path):
  path.write_bytes(sparse_header(small.tar_bytes({'a.png': bytes(700)})))
  assert scan(path) == ([], {'sparse file': 1})


def plain(**members):
  return small.tar_bytes({f'{k}.png': v for k, v in members.items()})


TWO = plain(a=bytes(600), b=bytes(100))  # headers at 0 and 1,536


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (TWO[:1000], r'as a tar \(it is cut short: .a.png. ends behind it'),
    (TWO[:1536], r'damaged at byte 1,536 \(.*the mark of its end is missing'),
    (TWO[:1700], r'damaged at byte 1,536'),
    (TWO[:1536] + b'x' + TWO[1537:], r'byte 1,536 \(what follows is no header'),
    (TWO[:1536] + bytes(1 << 21), r'it ends there, 2,097,152 bytes before'),
    (TWO + TWO, r'damaged at byte 2,560 \(more follows behind the mark of its'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
    (b'<html><body>Not found</body>', 'as a tar .* It is a web page'),
    (b'', 'as a tar .* The file is empty'),
    (
      b'\x1f\x8b' + bytes(600),
      r'once: gunzip < .*set.tar > .*set-unpacked.tar$',
    ),
    (small.tar_bytes({'../a.png': b''}), 'leads out of the archive'),
    (small.tar_bytes({'/a.png': b''}), 'leads out of the archive'),
  ],
)
def test_a_damaged_tar_is_refused_with_the_place(path, data, message):
  path.write_bytes(data)
  with pytest.raises(ValueError, match=message):
    scan(path)


def test_the_command_that_unpacks_a_tar_writes_a_tar(tmp_path):
  for suffix in ('.tar.gz', '.tgz'):
    path = tmp_path / f'a b{suffix}'
    path.write_bytes(gzip.compress(bytes(10240)))
    with pytest.raises(ValueError, match='Unpack it once: (gunzip.*)') as error:
      scan(path)
    command = str(error.value).partition('once: ')[2]
    subprocess.run(command, shell=True, check=True)
    assert scan(tmp_path / 'a b.tar') == ([], {})


def test_a_header_that_asks_for_gigabytes_is_refused(path):
  """A pax header is read as a whole; this one is of zeros and of 8 GiB."""
  info = tarfile.TarInfo('a')
  info.type, info.size = tarfile.XHDTYPE, 1 << 33
  with open(path, 'wb') as file:
    file.write(info.tobuf(tarfile.GNU_FORMAT))
    file.truncate(1 << 34)
  with pytest.raises(DamagedFile, match='says that it has 8,589,934,592 bytes'):
    scan(path)


def test_a_negative_size_ends(path):
  """Python 3.11 would read the same header for ever."""
  info = tarfile.TarInfo('a.png')
  info.size = -1024
  file = io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
  path.write_bytes(file.getvalue())
  with pytest.raises(DamagedFile, match='points backwards|as a tar'):
    scan(path)
