"""Runs commands of cdm, and counts what they send to the other processes.

  python benchmarks/counted_cdm.py OUT.json FOLDER '[["train", ...], ...]'

`benchmarks/scale.py` starts every process of a run through this file. What
Python does with files below FOLDER is counted too. The
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
import os
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


def count_python_files(counter, folder):
  """Counts what Python opens, lists and asks about below a folder.

  It costs nearly nothing, where strace stops a process at every call. Files
  that C++ opens are left out; TensorStore tells its own bytes at the end.
  """
  events = {'open': 'opened', 'os.listdir': 'listed', 'os.scandir': 'listed'}

  def hear(event, arguments):
    if event in events and is_below(arguments[0], folder):
      counter.counts[f'files {events[event]} by Python'] += 1

  def counted(function):
    @functools.wraps(function)
    def ask(path, *given, **named):
      if is_below(path, folder):
        counter.counts['files asked about by Python'] += 1
      return function(path, *given, **named)

    return ask

  sys.addaudithook(hear)
  for name in ('stat', 'lstat', 'access'):
    setattr(os, name, counted(getattr(os, name)))


def is_below(path, folder):
  """-> whether a path, of any type that `open` takes, is below a folder.

  The lock of a folder does not count: it is looked at every few seconds.
  """
  if not isinstance(path, str | os.PathLike):
    return False
  text = str(os.fspath(path))
  return text.startswith(folder) and '.cdm-lock' not in text


def tensorstore_bytes():
  """-> {kind: bytes} that TensorStore has read and written."""
  if 'tensorstore' not in sys.modules:
    return {}
  import tensorstore

  found = {}
  for word, kind in (('read', 'read'), ('written', 'wrote')):
    metrics = tensorstore.experimental_collect_matching_metrics(
      f'/tensorstore/kvstore/file/bytes_{word}'
    )
    values = [each['value'] for m in metrics for each in m['values']]
    found[f'bytes TensorStore {kind}'] = sum(values)
  return found


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
  out, folder, commands = sys.argv[1:]
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
  sys.modules['tensorflow'] = None  # An import of it fails.
  from cdm.cli import main as cli

  counter = Counter()
  count_python_files(counter, folder)
  install(counter)
  began = time.monotonic()
  for words in json.loads(commands):
    if words[0] == 'evaluate':
      use_linear_network()
    code = exec(words[1]) if words[0] == PROGRAM else cli.main(words)
    if code:
      sys.exit(code)
  counter.counts.update(tensorstore_bytes())
  counter.counts['seconds'] = time.monotonic() - began
  text = json.dumps(counter.counts)
  pathlib.Path(out).write_text(text, encoding='utf-8')


if __name__ == '__main__':
  main()
