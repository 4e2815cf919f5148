"""Makes damaged and hostile bytes from sound ones, for `fuzz`."""

import copy
import io
import json
import random
import re
import zipfile

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31)
NUMBERS += (2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
VALUES = (None, True, False, 0, -1, 1, 2**31, 2**40, 2**63, 10**30, 0.5, 1e308)
VALUES += ('', 'x', '\x00', '\ud800', '../../x', 'é' * 40, [], {}, [[]], [1])
VALUES += ({'a': 1}, [None] * 3, float('inf'), float('nan'), '1e5', '-' * 3000)
WORDS = (b'null', b'NaN', b'-Infinity', b'1e999', b'[' * 3000, b'{"a":' * 2000)
WORDS += (b'9' * 5000, b'-' * 9000, b'(' * 300, b'\xff\xfe', b'\xef\xbb\xbf')
WORDS += (b'\n', b'\n\n', b'"', b'\\', b'{}', b'[]', b'true', b'""', b'\x00')
WORDS += (b'%s%n', b'../', b"'", b',', b':', b'\r', b'1', b'-1', b'1.5')
# Single operations of a pickle, among them those that call and build.
OPCODES = b'.()0125bcdehilopqrstu}]aRVXBIJKLMNOPQjG\x80\x81\x82\x83\x84\x85\x86'
OPCODES += b'\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95'


def damaged(seeds, seed, name, n):
  """-> bytes of input n of a reader, which depend on the arguments only.

  Args:
    seeds: sound files, a list of bytes.
    seed: seed of all inputs.
    name: name of the reader.
    n: index of the input.
  """
  rng = random.Random(f'{seed} {name} {n}')
  data = rng.choice(seeds)
  if not rng.randrange(200):
    return rng.choice((b'', rng.randbytes(rng.randrange(1, 400)), b'<html>'))
  return changed(data, rng)


def changed(data, rng):
  """-> the bytes after one to four changes that fit what they are."""
  if data[:2] == b'PK' and rng.random() < 0.7:
    return in_archive(data, rng)
  if data.lstrip()[:1] in (b'{', b'[') and rng.random() < 0.6:
    return in_json(data, rng)
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    data = rng.choice(CHANGES)(data, rng)
  return data


def in_archive(data, rng):
  """-> a zip of changed members, whose checksums fit."""
  made = io.BytesIO()
  kind = rng.choice((0, 0, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
  with (
    zipfile.ZipFile(io.BytesIO(data)) as old,
    zipfile.ZipFile(made, 'w', kind) as new,
  ):
    names = old.namelist()
    victim = rng.choice(names)
    for name in names:
      content = old.read(name)
      if name == victim:
        if not rng.randrange(8):
          continue
        content = in_header(content, rng)
        name = rng.choice((name,) * 9 + (rng.choice(names), 'arr_1.npy'))
      if name not in new.namelist():
        new.writestr(name, content)
  data = made.getvalue()
  return data if rng.random() < 0.8 else flip(data, rng)


def in_header(data, rng):
  """-> the member, its .npy header or its pickle changed, or anything else."""
  kind = rng.random()
  if data[:6] == b'\x93NUMPY' and kind < 0.7:
    size = int.from_bytes(data[8:10], 'little')
    text = data[10 : 10 + size]
    for _ in range(rng.choice((1, 1, 2))):
      text = rng.choice((number, word, flip, remove))(text, rng)
    if rng.random() < 0.8:  # a length that fits
      size = len(text) % 65536
    return data[:8] + size.to_bytes(2, 'little') + text + data[10 + size :]
  if data[:1] == b'\x80' and kind < 0.8:
    return opcodes(data, rng)
  return rng.choice(CHANGES)(data, rng)


def in_json(data, rng):
  """-> JSON, or lines of it, in which a value became another one."""
  lines = data.split(b'\n')
  position = rng.randrange(len(lines)) if len(lines) > 2 else None
  text = data if position is None else lines[position]
  try:
    value = json.loads(text)
  except ValueError:
    return word(data, rng)
  for _ in range(rng.choice((1, 1, 2))):
    value = replaced(value, rng)
  text = json.dumps(value).encode()
  if position is None:
    return text
  lines[position] = text
  return b'\n'.join(lines)


def replaced(value, rng):
  """-> the value with another one somewhere inside, or without a key."""
  inside = isinstance(value, dict | list) and value
  if not inside or rng.random() < 0.1:
    return copy.deepcopy(rng.choice(VALUES))
  key = rng.choice(
    list(value) if isinstance(value, dict) else range(len(value))
  )
  kind = rng.random()
  if kind < 0.15:
    del value[key]
  elif kind < 0.25 and isinstance(value, dict):
    value[str(rng.choice(VALUES))] = value.pop(key)
  else:
    value[key] = replaced(value[key], rng)
  return value


def cut(data, rng):
  return data[: rng.randrange(len(data) + 1)]


def remove(data, rng):
  begin = rng.randrange(len(data) + 1)
  return data[:begin] + data[begin + rng.randrange(1, 40) :]


def flip(data, rng):
  data = bytearray(data)
  for _ in range(rng.choice((1, 1, 3, 10))):
    if data:
      data[rng.randrange(len(data))] = rng.randrange(256)
  return bytes(data)


def extreme(data, rng):
  """A number of 1 to 8 bytes becomes an extreme one."""
  size = rng.choice((1, 2, 4, 4, 8))
  value = rng.choice(NUMBERS) % 256**size
  begin = rng.randrange(max(1, len(data) - size + 1))
  order = rng.choice(('little', 'big'))
  return data[:begin] + value.to_bytes(size, order) + data[begin + size :]


def number(data, rng):
  """A decimal number becomes another one."""
  found = list(re.finditer(rb'-?\d+', data[: 1 << 16]))
  if not found:
    return extreme(data, rng)
  begin, end = rng.choice(found).span()
  new = str(rng.choice((*NUMBERS, -1, -5, 10**30))).encode()
  return data[:begin] + new + data[end:]


def word(data, rng):
  begin = rng.randrange(len(data) + 1)
  end = begin + rng.choice((0, 0, 1, 4))
  return data[:begin] + rng.choice(WORDS) + data[end:]


def repeat(data, rng):
  """A stretch is repeated, or one byte a few thousand times."""
  begin = rng.randrange(len(data) + 1)
  if rng.random() < 0.5:
    piece = rng.choice((b'\xff', b'\x00', b'\x80', b'-', b'[', b'(')) * 4000
  else:
    piece = data[begin : begin + rng.randrange(1, 200)] * rng.randrange(1, 20)
  return data[:begin] + piece + data[begin:]


def swap(data, rng):
  """Two stretches change places."""
  a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
  size = rng.randrange(1, 32)
  middle = data[a + size : b]
  return data[:a] + data[b : b + size] + middle + data[a : a + size] + data[b:]


def opcodes(data, rng):
  """A few bytes become operations of a pickle."""
  data = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 3))):
    where = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:
      data.insert(where, rng.choice(OPCODES))
    elif where < len(data):
      data[where] = rng.choice(OPCODES)
  return bytes(data)


CHANGES = (cut, remove, flip, flip, extreme, extreme, number, word, repeat)
CHANGES += (swap, opcodes)
