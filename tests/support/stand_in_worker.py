"""A program that stands for the worker of `cdm serve`, and draws nothing.

  python stand_in_worker.py KIND MODE

KIND is photographs or cascade. In the MODE `slow`, parts and files take for
ever; `deaf` does not hear of a cancellation either; `dies` ends at a part.
"""

import json
import os
import pathlib
import struct
import sys
import threading
import time
import zlib

CANCELLED = set()
REQUESTS = []
ARRIVED = threading.Semaphore(0)
PART = dict(top=0, left=0, height=8, width=8)
KINDS = {
  'photographs': dict(
    name='stand-in', factor=4, mean=True, draws=True, detail=0.6, part=8,
    num_classes=0, class_names=[], needs_class=False,
  ),
  'cascade': dict(
    name='stand-in', num_classes=2, class_names=['a cat', 'a dog'], count=2,
    stages=[{'name': 'base', 'size': 8}, {'name': 'sr', 'size': 16}],
    guided={'base': 0.0},
  ),
}  # fmt: skip


def png(side, level):
  """-> bytes of a grey PNG file."""
  rows = b''.join(b'\0' + bytes([level]) * side for _ in range(side))
  chunks = (
    (b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)),
    (b'IDAT', zlib.compress(rows)),
    (b'IEND', b''),
  )
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(data))
    + kind
    + data
    + struct.pack('>I', zlib.crc32(kind + data))
    for kind, data in chunks
  )


def say(**message):
  print(json.dumps(message), flush=True)


def listen():
  for line in sys.stdin:
    message = json.loads(line)
    if 'cancel' in message:
      CANCELLED.add(message['cancel'])
    else:
      REQUESTS.append(message)
      ARRIVED.release()
  os._exit(0)


def opened(folder):
  (folder / 'overview.png').write_bytes(png(32, 90))
  return {
    'media': ['overview.png'],
    'picture': dict(
      kind='PNG', height=32, width=32, bits=8, alpha=False, notes=[],
      metadata=[], overview='overview.png', part=PART,
    ),
  }  # fmt: skip


def part(folder, request):
  layers = []
  for level, kind in ((60, 'bicubic'), (90, 'mean'), (120, 'sample')):
    name = f'part-{kind}.png'
    (folder / name).write_bytes(png(32, level))
    seed = 0 if kind == 'sample' else None
    layers.append(dict(name=kind, kind=kind, seed=seed, file=name))
  about = {'at': 'x', **request['part'], 'scale': 4.0, 'shown': [32, 32]}
  media = [layer['file'] for layer in layers]
  return {'media': media, 'layers': layers, 'part': about}


def written(folder, request):
  (folder / 'made.png').write_bytes(png(128, 120))
  return {
    'file': dict(
      path='made.png', suffix='.png', scale=4.0, seed=0, detail=0.6, notes=[],
      kind='PNG', strip=request['strip'], bytes=100, width=128, height=128,
    )
  }  # fmt: skip


def drawn(folder, request):
  images = []
  for n in range(request['count']):
    names = [f'draw-{n}-{i}.png' for i in range(2)]
    for name, side in zip(names, (8, 16), strict=True):
      (folder / name).write_bytes(png(side, 40 * n + 60))
    images.append(names)
  media = [name for names in images for name in names]
  return {
    'media': media,
    'images': images,
    'drawn': {'seed': request['seed'], 'label': request['label']},
  }


def waits(number, deaf):
  """-> whether a task that takes for ever was cancelled."""
  done = 0
  while deaf or number not in CANCELLED:
    done += 1
    say(number=number, progress=[min(done, 900), 1000])
    time.sleep(0.02)


def main(kind, mode):
  threading.Thread(target=listen, daemon=True).start()
  if mode == 'refuses':
    say(refused='There is no such stage.')
    return
  say(ready={'kind': kind, **KINDS[kind], 'pid': os.getpid()})
  do = {
    'part': part, 'file': written, 'draw': drawn,
    'open': lambda folder, request: opened(folder),
  }  # fmt: skip
  while True:
    ARRIVED.acquire()
    request = REQUESTS.pop(0)
    number, task = request['number'], request['task']
    if mode == 'dies' and task == 'part':
      os._exit(1)
    if mode in ('slow', 'deaf') and task != 'open':
      waits(number, mode == 'deaf')
    if number in CANCELLED:
      say(number=number, cancelled=True)
      continue
    say(number=number, done=do[task](pathlib.Path(request['folder']), request))


if __name__ == '__main__':
  main(*sys.argv[1:])
