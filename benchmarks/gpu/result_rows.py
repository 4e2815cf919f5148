"""Writes the figures of a GPU job as they arrive, and what they depend on.

A row is one JSON object on a line of OUT/rows.jsonl. It holds the figures, and
the device, the driver, the versions, the commit, and the settings of memory and
autotuning that the figures depend on. A job that is stopped loses no row.
"""

import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import re
import subprocess
import sys

from cdm.distributed import source_commit
from cdm.reporting import jsonl

FILE = 'rows.jsonl'
PACKAGES = ('jax', 'jaxlib', 'flax', 'torch')
# What the environment says of memory, precision and the compiler.
SETTINGS = (
  'XLA_PYTHON_CLIENT_PREALLOCATE',
  'XLA_PYTHON_CLIENT_MEM_FRACTION',
  'XLA_PYTHON_CLIENT_ALLOCATOR',
  'JAX_DEFAULT_MATMUL_PRECISION',
  'NVIDIA_TF32_OVERRIDE',
  'XLA_FLAGS',
)
_AUTOTUNE = re.compile(r'--xla_gpu_autotune_level=(\d+)')


class Rows:
  """The rows of one job.

  Attributes:
    path: the file that they are appended to.
    rows: those that this object has written.
  """

  def __init__(self, out, job, *, smoke, device=None):
    """Prepares the file.

    Args:
      out: folder of the results, which is made.
      job: name of the job.
      smoke: whether this is the short test, whose figures are no results.
      device: name of the device; None asks JAX, which then takes it.
    """
    self.path = pathlib.Path(out) / FILE
    self.path.parent.mkdir(parents=True, exist_ok=True)
    self.rows = []
    self._fixed = {'job': job, 'smoke': smoke}
    self._device = device
    self._place = None

  def add(self, **figures):
    """Appends a row and prints its figures; a number must be finite or text."""
    if self._place is None:
      self._place = place(self._device)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    figures = {name: _plain(value) for name, value in figures.items()}
    row = self._fixed | figures | {'time': now} | self._place
    jsonl.append(self.path, [row], allow_nan=False)
    self.rows.append(row)
    print(json.dumps(figures), flush=True)


def place(device=None):
  """Returns where this process measures, as a dict of texts and numbers.

  Args:
    device: name of the device; None asks JAX, which then takes it.
  """
  if device is None:
    import jax

    device = jax.devices()[0].device_kind
  flags = os.environ.get('XLA_FLAGS', '')
  level = _AUTOTUNE.search(flags)
  return {
    'device': device,
    'driver': driver(),
    'python': '.'.join(map(str, sys.version_info[:3])),
    **{name: _version(name) for name in PACKAGES},
    'commit': source_commit.commit(),
    'autotune_level': level[1] if level else 'default',
    **{name.lower(): os.environ.get(name, 'default') for name in SETTINGS},
  }


def driver():
  """Returns the name of the card and the version of its driver, or None."""
  command = ['nvidia-smi', '--query-gpu=name,driver_version']
  try:
    done = subprocess.run(
      [*command, '--format=csv,noheader'],
      capture_output=True,
      text=True,
      timeout=30,
      check=True,
      encoding='utf-8',
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None


def table(rows, columns):
  """Returns rows as a Markdown table.

  Args:
    rows: dicts.
    columns: which of their keys, in this order; one that a row lacks is empty.
  """
  lines = ['| ' + ' | '.join(columns) + ' |', '|---' * len(columns) + '|']
  for row in rows:
    cells = [_shown(row.get(name)) for name in columns]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines) + '\n'


def write_table(out, name, rows, columns):
  """Writes rows as OUT/NAME, a Markdown table, and prints it."""
  text = table(rows, columns)
  (pathlib.Path(out) / name).write_text(text, encoding='utf-8')
  print(text, end='', flush=True)


def _shown(value):
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.4g}'
  return str(value).replace('|', '/')


def _plain(value):
  """Returns a value of JSON; a number that is not finite becomes a text."""
  if hasattr(value, 'item'):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def _version(name):
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None
