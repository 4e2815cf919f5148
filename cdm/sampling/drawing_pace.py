"""Says beforehand how long drawing takes on this machine.

The time of each run is remembered in the user's cache, for each stage, device
and version of JAX, in seconds for a million pixels that its network evaluated.
Before there is one, a convolution is timed instead, and the FLOPs of the
network are counted.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cdm.data.files import atomic_files
from cdm.distributed import collectives, user_cache
from cdm.reporting import progress
from cdm.sampling.canvas_upscaler import CanvasUpscaler
from cdm.sampling.enlargement import Enlargement

_CACHE, _FILE = 'drawing', 'paces.json'
_KEPT = 100  # the newest ones
# Part of a single convolution's rate that photo_faithful reached with all that
# is around it, on two cores: 0.52 to 0.7.
_SHARE = 0.6
_SHOWN_FROM = 2.0  # seconds; nobody plans with less


def announce(record: Any, enlargements: Sequence[Enlargement]) -> None:
  """Says how long drawing takes, if it is long; a collective.

  Args:
    record: what the results of the stage depend on, or None.
    enlargements: all that is drawn, by one stage.
  """
  if not enlargements:
    return
  upscaler = enlargements[0].upscaler
  # What one process knows, all print or none.
  seconds = collectives.call_in_first(
    lambda: _seconds(record, upscaler, enlargements)
  )
  if seconds is None or seconds < _SHOWN_FROM or not collectives.is_first():
    return
  about = float(f'{seconds:.2g}')
  text = f'{about:g} s' if about < 60 else progress.duration(about)
  where = _named(_devices(upscaler))
  print(f'Drawing takes about {text}, on {where}.', flush=True)


class Watch:
  """Times the windows of a run, and remembers its pace."""

  def __init__(self, record: Any, upscaler: CanvasUpscaler):
    """Begins to wait for the first windows.

    Args:
      record: what the results of the stage depend on, or None.
      upscaler: the stage.
    """
    self._record, self._upscaler = record, upscaler
    self._first: float | None = None
    self._last, self._pixels = 0.0, 0

  def callback(
    self, enlargement: Enlargement, then: Callable[[int], object]
  ) -> Callable[[int], object]:
    """Returns a callback that records how many windows more are done.

    The first ones only start the clock, because compiling came before them.

    Args:
      enlargement: what the windows are of.
      then: callback that is called, too.
    """
    pixels = enlargement.upscaler.cut.size**2

    def on_windows(count: int) -> None:
      self._last = time.monotonic()
      if self._first is None:
        self._first = self._last
      else:
        self._pixels += count * pixels
      then(count)

    return on_windows

  def remember(self) -> None:
    """Keeps the pace in the user's cache, if enough was seen."""
    if self._first is None or not self._pixels:
      return
    if not collectives.is_first():
      return
    pace = (self._last - self._first) / (self._pixels / 1e6)
    try:
      path = user_cache.folder(_CACHE) / _FILE
      known = _read()
      key = _key(self._record, self._upscaler)
      known.pop(key, None)
      kept = dict([*known.items(), (key, pace)][-_KEPT:])
      atomic_files.write_text_atomically(path, json.dumps(kept))
    except OSError:
      pass  # What is not remembered is timed again.


def _seconds(record, upscaler, enlargements):
  """Returns how long drawing takes, or None if that cannot be said."""
  pixels = sum(
    plan.num_windows * plan.cut.size**2
    for enlargement in enlargements
    for plan in enlargement.plans
  )
  pace = _read().get(_key(record, upscaler))
  if pace is not None:
    return pace * pixels / 1e6
  if upscaler.stage.trace is None:
    return None
  flops = sum(enlargement.flops for enlargement in enlargements)
  return flops / (_SHARE * _convolution_rate() * len(_devices(upscaler)))


def _read() -> dict[str, float]:
  """Returns the paces that are remembered; {} if they cannot be read."""
  path = user_cache.find(_CACHE, _FILE)
  try:
    known = {} if path is None else json.loads(path.read_text('utf-8'))
  except (OSError, ValueError):
    return {}
  if not isinstance(known, dict):
    return {}
  return {k: v for k, v in known.items() if isinstance(v, float) and v > 0}


def _key(record, upscaler):
  """Returns what a pace belongs to."""
  stage = None if record is None else record.manifest()
  devices = _devices(upscaler)
  parts = [
    stage,
    upscaler.evaluations,
    devices[0].device_kind,
    len(devices),
    os.cpu_count() if devices[0].platform == 'cpu' else None,
    jax.__version__,
  ]
  text = json.dumps(parts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _named(devices):
  """Returns what draws, as people name it."""
  if devices[0].platform == 'cpu':
    cores = os.cpu_count() or 1
    return f'the CPU ({cores} core{"s" * (cores > 1)})'
  return f'{len(devices)} {devices[0].device_kind}'


def _devices(upscaler):
  mesh = upscaler.stage.mesh
  return jax.devices()[:1] if mesh is None else list(mesh.devices.flat)


def _convolution_rate() -> float:
  """Returns the FLOPs per second of a convolution of small networks."""
  side, channels, kernel = 128, 48, 3
  x = jnp.ones((1, side, side, channels), jnp.float32)
  w = jnp.ones((kernel, kernel, channels, channels), jnp.float32)

  @jax.jit
  def convolve(x, w):
    return jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  convolve(x, w).block_until_ready()  # compiles
  times = []
  for _ in range(3):
    began = time.perf_counter()
    convolve(x, w).block_until_ready()
    times.append(time.perf_counter() - began)
  flops = 2 * side**2 * channels**2 * kernel**2
  return flops / float(np.median(times))
