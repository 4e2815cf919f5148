"""The age of a process counts from its start, not from an import."""

import os
import subprocess
import sys

CODE = """
import time
time.sleep(0.6)
from cdm.reporting import process_age
print(process_age.seconds())
{without}
print(process_age.seconds())
"""


HAS_PROC = os.path.exists('/proc/self/stat')


def test_it_counts_the_time_before_its_module_was_imported():
  """Without /proc it cannot, and counts from the import."""
  code = CODE.format(
    without='import pathlib; process_age._STAT = pathlib.Path("/nowhere")'
  )
  out = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  )
  whole, since_import = map(float, out.stdout.split())
  if HAS_PROC:
    assert 0.55 < whole < 60  # ticks of a hundredth of a second
    assert 0 <= since_import < whole - 0.5
  else:
    assert 0 <= whole <= since_import < 0.5
