"""A process that is done ends, whatever its threads wait for."""

import subprocess
import sys
import time

import pytest

# A thread of an executor that a storage never answers, and one that returns.
SCRIPT = """
import atexit, concurrent.futures, sys, threading, time
from cdm.distributed import stuck_threads
pool = concurrent.futures.ThreadPoolExecutor(2)
pool.submit(time.sleep, {seconds})
pool.submit(time.sleep, 0.1)
time.sleep(0.2)
atexit.register(print, 'said goodbye', flush=True)
print('done')
stuck_threads.end_without_them({code}, grace={grace})
sys.exit({code})
"""


def ended(**given):
  began = time.monotonic()
  done = subprocess.run(
    [sys.executable, '-c', SCRIPT.format(**given)],
    capture_output=True,
    text=True,
    encoding='utf-8',
    timeout=60,
  )
  return done, time.monotonic() - began


@pytest.mark.parametrize('code', [0, 3])
def test_it_ends_without_a_thread_that_never_returns(code):
  """Its exit functions are called, so that the others see it leave."""
  done, seconds = ended(seconds=1000, grace=0.5, code=code)
  assert done.returncode == code and seconds < 30
  assert done.stdout == 'done\nsaid goodbye\n'
  assert 'threads still wait for a storage' in done.stderr


def test_threads_that_return_are_waited_for():
  done, seconds = ended(seconds=2, grace=30, code=0)
  assert (done.returncode, done.stderr) == (0, '') and seconds >= 2
  assert done.stdout == 'done\nsaid goodbye\n'
