"""Runs commands of cdm, and counts what they send to the other processes.

  python benchmarks/counted_cdm.py OUT.json '[["train", "--config=...", ...]]'

`benchmarks/scale.py` starts every process of a run through this file. The
functions of JAX that wait for other processes are wrapped before cdm calls
them, so the counts include those of Orbax. A call inside another one counts as
part of it. The bytes of a broadcast or gather are those that one process hands
over: every process receives those of a gather once from each. What the devices
exchange inside a compiled program is not counted.

Instead of a command, ["python", PROGRAM] runs a program in the same process.

Two things stand in for heavy ones: TensorFlow is hidden, and FID is computed
with a linear network in the place of Inception.
"""

import collections
import functools
import json
import pathlib
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = 'python'  # in the place of a command: a program follows
MONITOR = 'peer_monitor'  # the thread that only looks whether others are there


class Counter:
  """Adds up calls, their bytes and the seconds spent in them."""

  def __init__(self):
    self.counts = collections.Counter()
    self._lock = threading.Lock()
    self._inside = threading.local()

  def wrap(self, owner, name, kind, size=lambda given, result: 0):
    """Replaces a function by one that is counted.

    Args:
      owner: module or class that holds the function.
      name: its name there.
      kind: what a call counts as.
      size: (arguments, result) -> bytes that the call handed over.
    """
    function = getattr(owner, name)

    @functools.wraps(function)
    def counted(*given, **named):
      if getattr(self._inside, 'busy', False):
        return function(*given, **named)
      self._inside.busy = True
      began = time.monotonic()
      result = None
      try:
        result = function(*given, **named)
      finally:
        self._inside.busy = False
        self._add(kind, size(given, result), time.monotonic() - began)
      return result

    setattr(owner, name, counted)

  def _add(self, kind, size, seconds):
    thread = threading.current_thread()
    if thread.name == MONITOR:
      kind = 'monitor calls'
    with self._lock:
      self.counts[kind] += 1
      self.counts[f'bytes of {kind}'] += size
      if thread is threading.main_thread():
        self.counts['seconds waited'] += seconds


def tree_bytes(tree):
  """-> bytes of all arrays of a tree."""
  import jax
  import numpy as np

  return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))


def text_bytes(value):
  """-> bytes of what the key-value store returned."""
  if isinstance(value, list):
    return sum(text_bytes(part) for pair in value for part in pair)
  return len(value) if isinstance(value, str | bytes) else 0


def install(counter):
  """Wraps the functions of JAX that talk to the other processes."""
  from jax._src.lib import _jax
  from jax.experimental import multihost_utils

  counter.wrap(
    multihost_utils,
    'broadcast_one_to_all',
    'broadcasts',
    lambda given, _: tree_bytes(given[0]),
  )
  counter.wrap(
    multihost_utils,
    'process_allgather',
    'gathers',
    lambda given, _: tree_bytes(given[0]),
  )
  counter.wrap(multihost_utils, 'sync_global_devices', 'barriers')
  client = _jax.DistributedRuntimeClient
  counter.wrap(client, 'wait_at_barrier', 'barriers')
  for name in dir(client):
    if 'key_value' in name:
      counter.wrap(
        client, name, 'store calls', lambda _, result: text_bytes(result)
      )


def use_linear_network():
  """Lets a network that is linear in the pixels stand in for Inception."""
  from support import linear_features

  from cdm.evaluation import extract_features

  seconds = extract_features.SAVE_SECONDS
  linear_features.stand_in()
  extract_features.SAVE_SECONDS = seconds


def main():
  out, commands = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
  sys.modules['tensorflow'] = None  # An import of it fails.
  from cdm.cli import main as cli

  counter = Counter()
  install(counter)
  began = time.monotonic()
  for words in commands:
    if words[0] == 'evaluate':
      use_linear_network()
    code = exec(words[1]) if words[0] == PROGRAM else cli.main(words)
    if code:
      sys.exit(code)
  counter.counts['seconds'] = time.monotonic() - began
  out.write_text(json.dumps(counter.counts), encoding='utf-8')


if __name__ == '__main__':
  main()
