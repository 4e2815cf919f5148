"""Marks the files that are written, so that a later start knows them again.

A mark is a digest of all that a picture depends on. It stands at the end of a
file, where programs that read it pass over it, and says nothing of the picture
or its author. A file that is cut off has none.
"""

import os
import pathlib
import struct
import zlib

_NAME = b'cdm\0'
_LOOKED_AT = 256  # bytes at the end of a file
_PNG_END = b'\0\0\0\0IEND\xaeB`\x82'
_JPEG_END = b'\xff\xd9'


def append(path: str | os.PathLike[str], kind: str, mark: str) -> None:
  """Adds a mark to a file.

  Args:
    path: of the file.
    kind: what it is, a name of `output_kinds.KINDS` or `video_kinds.KINDS`.
    mark: ASCII text.
  """
  data = _NAME + mark.encode('ascii')
  with open(path, 'r+b') as file:
    if kind == 'WebP':  # a chunk of its own, which the file's size counts
      chunk = b'cdm ' + struct.pack('<I', len(data)) + data
      data = chunk + b'\0' * (len(chunk) % 2)
      file.seek(4)
      size = struct.unpack('<I', file.read(4))[0]
      file.seek(4)
      file.write(struct.pack('<I', size + len(data)))
    elif kind in ('AVIF', 'MP4', 'QuickTime'):  # a box of free space
      data = struct.pack('>I', 8 + len(data)) + b'free' + data
    elif kind in ('Matroska', 'WebM'):  # an element of free space
      data = b'\xec\x01' + len(data).to_bytes(7, 'big') + data
    # In front of the end of a PNG or JPEG file, a text or a comment.
    end = {'PNG': _PNG_END, 'JPEG': _JPEG_END}.get(kind, b'')
    if kind == 'PNG':
      body = b'tEXt' + data
      data = struct.pack('>I', len(data)) + body
      data += struct.pack('>I', zlib.crc32(body))
    elif kind == 'JPEG':
      data = b'\xff\xfe' + struct.pack('>H', len(data) + 2) + data
    file.seek(-len(end), os.SEEK_END)
    file.write(data + end)


def has(path: str | os.PathLike[str], mark: str) -> bool:
  """Returns whether a file is there, whole, and has this mark."""
  path = pathlib.Path(path)
  if not path.is_file():
    return False
  with open(path, 'rb') as file:
    begins = file.read(8)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LOOKED_AT))
    tail = file.read()
  end = b''
  if begins.startswith(b'\x89PNG'):
    end = _PNG_END
  elif begins.startswith(b'\xff\xd8'):
    end = _JPEG_END
  return _NAME + mark.encode('ascii') in tail and tail.endswith(end)
