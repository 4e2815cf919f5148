"""The only impure loop: reads data, runs the step, reports, saves, stops.

The device is kept a few steps ahead of the host, and nothing is fetched from
it but where a line is logged or a checkpoint is saved.
"""

import contextlib
import copy
import os
import pathlib
import queue
import signal
import threading
import time
from typing import Any, NamedTuple

import jax

from cdm import report, sharding
from cdm.train.state import make_state
from cdm.train.window import Window

# Batches read ahead of the step, already on the device.
PREFETCH = 2


class Outcome(NamedTuple):
  """How a run ended; one that went wrong raises instead."""

  state: Any
  step: int
  signum: int | None  # of the signal that stopped it

  @property
  def exit_code(self):
    """0 if the run is complete; 130 after Ctrl-C, 143 after SIGTERM."""
    return 0 if self.signum is None else 128 + self.signum


def enable_compilation_cache(path=None):
  """Keeps compiled programs on disk, so that a second start is fast.

  Args:
    path: directory; by default `cdm/xla` in the user's cache directory. The
      variable JAX_COMPILATION_CACHE_DIR, where set, wins.

  Returns:
    The directory in use.
  """
  given = os.environ.get('JAX_COMPILATION_CACHE_DIR')
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  path = pathlib.Path(given or path or pathlib.Path(home) / 'cdm' / 'xla')
  jax.config.update('jax_compilation_cache_dir', str(path))
  # Programs that compile faster than this are not worth a file.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  return path


def start(init, tx, *, key, abstract, checkpointer, iterator, reporter):
  """Begins a run, or continues it if its work directory has a checkpoint.

  Args:
    init: key -> params.
    tx: optimizer.Optimizer.
    key: typed key of the run; a continued run keeps its own.
    abstract: the state's shapes and places, see state.placed.
    checkpointer: checkpoint.Checkpointer.
    iterator: data iterator with get_state and set_state; it is moved to where
      the checkpoint left it.
    reporter: report.Reporter; its record is cut back to the checkpoint.

  Returns:
    (TrainState on the mesh, Window): what `train` takes.
  """
  restored = checkpointer.restore_latest(abstract)
  if restored is None:
    state, step = make_state(init, tx, key=key, abstract=abstract), 0
    window = Window()
  else:
    state, step = restored.state, restored.step
    window = Window(restored.window)
    iterator.set_state(restored.data_state)
    reporter.say(f'continuing from the checkpoint of step {step}')
  reporter.resume(step)
  checkpointer.write_config()
  return state, window


def train(
  *,
  state,
  step,
  iterator,
  mesh,
  checkpointer,
  reporter,
  num_steps,
  log_every_steps,
  save_every_steps,
  sample_every_steps=0,
  draw_samples=None,
  evaluate_every_steps=0,
  evaluate=None,
  window=None,
  stop=None,
):
  """Trains from state.step to num_steps, or until asked to stop.

  A run that is stopped, or killed, and started again logs and ends with
  exactly what it would have without.

  Args:
    state: TrainState; donated.
    step: (state, batch) -> (state, scalars), see step.make_step.
    iterator: yields host batches of this process; get_state gives the position
      after the last one. It is read ahead, so afterwards it stands beyond the
      position that was saved.
    mesh: the mesh.
    checkpointer: checkpoint.Checkpointer.
    reporter: report.Reporter.
    num_steps: the step at which the run is complete.
    log_every_steps: a line of scalars, averaged since the line before.
    save_every_steps: a checkpoint; one more at the end.
    sample_every_steps: a picture grid; one more at the end. 0 for none.
    draw_samples: ema_params -> uint8 [H, W, 3], or None for nothing to show.
    evaluate_every_steps: an evaluation; one more at the end. 0 for none.
    evaluate: ema_params -> {name: number}.
    window: Window of a continued run.
    stop: Stop; by default one that listens to SIGINT and SIGTERM.

  Returns:
    Outcome.

  Raises:
    Diverged: if a loss or a gradient is not finite. Nothing is saved from
      that step on; the message names the steps.
    OSError: if a checkpoint or report cannot be written.
  """
  first = at = saved = int(state.step)
  if at >= num_steps:
    reporter.say(f'step {at} of {num_steps}: the run is complete')
    return Outcome(state, at, None)
  window = Window() if window is None else window
  timer = report.Timer()
  batch_size = data_state = None

  def log():
    window.drain()
    window.check(checkpointer, at)
    rates = timer.rates(at, batch_size=batch_size)
    means = window.means()
    reporter.scalars(at, means | rates)
    reporter.progress(at, means['loss'])

  def save():
    window.drain()
    window.check(checkpointer, at)
    checkpointer.save(at, state, data_state=data_state, window=window.to_json())

  def show(final=False):
    def due(every):
      return bool(every) and (at % every == 0) != final

    if draw_samples is not None and due(sample_every_steps):
      image = draw_samples(state.ema_params)
      if image is not None:
        reporter.grid(at, 'samples', image)
    if evaluate is not None and due(evaluate_every_steps):
      reporter.scalars(at, evaluate(state.ema_params))

  with contextlib.ExitStack() as stack:
    stop = stack.enter_context(Stop() if stop is None else stop)
    batches = stack.enter_context(_Prefetch(iterator, mesh))
    stack.callback(reporter.end_progress)
    while at < num_steps:
      with timer.waiting():
        item = batches.next(stop)
      if item is None:
        break
      batch, data_state = item
      if at == first:
        reporter.say('compiling the training step ...')
        reporter.prepare()
        began = time.monotonic()
      state, scalars = step(state, batch)
      at += 1
      window.add(at, scalars)
      if at == first + 1:
        jax.block_until_ready(scalars)
        took = report.duration(time.monotonic() - began)
        reporter.say(f'first step after {took}')
        batch_size = jax.tree.leaves(batch)[0].shape[0]
        reporter.start_progress(total=num_steps, step=at, unit_size=batch_size)
        timer.restart(at)
      reporter.progress(at, window.glance())
      if at % log_every_steps == 0:
        log()
        window.clear()
        timer.restart(at)
      with timer.away():
        # Saved first: what goes wrong while drawing costs no step.
        if at % save_every_steps == 0:
          save()
          saved = at
        show()

    if at == num_steps:
      if at % log_every_steps:
        log()  # and goes on gathering, should num_steps be raised later
    if at > saved:
      save()
    if at == num_steps:
      show(final=True)
    checkpointer.wait()
    reporter.end_progress()
    if at == num_steps:
      return Outcome(state, at, None)
    name = signal.Signals(stop.signum).name
    reporter.say(
      f'{name}: stopped after step {at} of {num_steps}'
      + (', which is saved' if at > first else '')
      + '; the same command continues from there'
    )
    return Outcome(state, at, stop.signum)


class Stop:
  """Listens to SIGINT and SIGTERM: finish the step, save, end.

  A second signal ends the process at once; what is saved stays whole, because
  checkpoints appear complete or not at all.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.signum = None
    self._previous = {}

  def __enter__(self):
    # Python runs handlers in the main thread only, and sets them only there.
    if threading.current_thread() is threading.main_thread():
      for signum in self.SIGNALS:
        self._previous[signum] = signal.signal(signum, self.ask)
    return self

  def __exit__(self, *_):
    for signum, handler in self._previous.items():
      signal.signal(signum, handler)

  def ask(self, signum, _frame=None):
    """Asks to stop, as the signal `signum` does."""
    name = signal.Signals(signum).name
    # os.write: a handler may interrupt a print half-way, and printing again
    # would then fail.
    if self.signum is not None:
      os.write(2, f'\n{name} again: ending at once\n'.encode())
      os._exit(128 + signum)
    self.signum = signum
    line = f'\n{name}: finishing the step and saving (again: end at once)\n'
    os.write(2, line.encode())


class _Prefetch:
  """Reads batches ahead in a thread, each with the data position after it.

  The position that is saved belongs to the batches that were trained on, not
  to those that were read.
  """

  def __init__(self, iterator, mesh):
    self._iterator = iterator
    self._mesh = mesh
    self._ready = queue.Queue(PREFETCH)
    self._closed = threading.Event()
    self._thread = threading.Thread(
      target=self._read, name='prefetch', daemon=True
    )

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._closed.set()
    # A read that hangs must not keep the process from ending.
    self._thread.join(timeout=10)

  def _read(self):
    try:
      while True:
        batch = next(self._iterator)
        # Copied: an iterator may give its own dict and go on changing it.
        position = copy.deepcopy(self._iterator.get_state())
        if not self._put((sharding.shard_batch(batch, self._mesh), position)):
          return
    except BaseException as error:  # raised in the loop, where it belongs
      self._put(error)

  def _put(self, item):
    while not self._closed.is_set():
      with contextlib.suppress(queue.Full):
        self._ready.put(item, timeout=0.1)
        return True
    return False

  def next(self, stop):
    """-> (batch on the mesh, position after it); None once asked to stop."""
    while stop.signum is None:
      with contextlib.suppress(queue.Empty):
        item = self._ready.get(timeout=0.1)
        break
    else:
      return None
    # Ctrl-C reaches worker processes too; their end is no error then.
    if stop.signum is not None:
      return None
    if isinstance(item, StopIteration):
      raise ValueError(
        'The data ended before the run did; make the iterator with '
        'repeat=True, or lower train.num_steps.'
      )
    if isinstance(item, BaseException):
      raise item
    return item
