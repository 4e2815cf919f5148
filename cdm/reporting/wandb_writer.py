"""Sends scalars and image grids to Weights & Biases.

Everything happens in a background thread, and no error of the service or the
network ends a run: a line says what is wrong, and scalars.jsonl holds the same
numbers. The run id is kept in WORKDIR/wandb_run.json, so a run that is started
again goes on as the same run. Its x-axis is `step`; what a rollback undid stays
on the page, beside what replaced it.

Without a login, or with WANDB_MODE=offline, the data lies in WORKDIR/wandb
until `wandb sync` sends it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from cdm.data import shell_commands
from cdm.data.files import atomic_files, json_file

RUN = 'wandb_run.json'
_CLOSING_SECONDS = 60.0


class _SavedRun(TypedDict):
  """The content of WORKDIR/wandb_run.json."""

  project: str
  id: str


def check_installed(project: str) -> None:
  """Raises ValueError if a config asks for a package that is not installed.

  Args:
    project: `config.train.wandb`.
  """
  if project and importlib.util.find_spec('wandb') is None:
    raise ValueError(
      f'config.train.wandb is {project!r}, but the package wandb is not '
      f'installed. Run: {shell_commands.install("cdm[wandb]")} (or set '
      "--config.train.wandb='')"
    )


class WandbWriter:
  """Sends the scalars and grids of one session to Weights & Biases."""

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    project: str,
    name: str,
    config: Mapping[str, Any],
    say: Callable[[str], object],
  ):
    """Starts the background thread, which connects at the first scalars.

    Args:
      workdir: work directory of the run.
      project: name of the project.
      name: name of the run.
      config: the config as a dict, which the service shows.
      say: prints a line.
    """
    self._workdir, self._project, self._name = workdir, project, name
    self._config, self._say = config, say
    self._work: queue.SimpleQueue = queue.SimpleQueue()
    self._run: Any = None
    self._off = False
    self._thread: threading.Thread | None = None

  def resume(self, step: int) -> None:
    """Does nothing: the service cannot take back what it was sent."""

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Sends {name: number} of a step."""
    self._submit(lambda run: run.log({'step': step, **values}))

  def image(
    self, step: int, name: str, png: bytes, size: tuple[int, int]
  ) -> None:
    """Sends an image, see `tensorboard.TensorBoard.image`."""

    def send(run):
      import io

      import wandb
      from PIL import Image

      image = wandb.Image(Image.open(io.BytesIO(png)))
      run.log({'step': step, name: image})

    self._submit(send)

  def close(self) -> None:
    """Sends what is pending; gives up after a minute, and says so."""
    if self._thread is None:
      return
    self._work.put(None)
    self._thread.join(_CLOSING_SECONDS)
    if self._thread.is_alive():
      self._say(
        'Weights & Biases did not take everything in time; send the rest with '
        f'`wandb sync` of the folders in {self._workdir / "wandb"}'
      )
    self._thread = None

  def _submit(self, work: Callable[[Any], object]) -> None:
    if self._thread is None:
      # A daemon: a network that hangs must not keep the process alive.
      self._thread = threading.Thread(
        target=self._work_off, name='wandb', daemon=True
      )
      self._thread.start()
    self._work.put(work)

  def _work_off(self) -> None:
    while (work := self._work.get()) is not None:
      if not self._off:
        self._try(lambda work=work: work(self._opened()))
    if self._run is not None:
      self._try(self._run.finish)

  def _try(self, work: Callable[[], object]) -> None:
    try:
      work()
    except Exception as error:  # The client has many errors of its own.
      self._off = True
      reason = (str(error) or type(error).__name__).split('\n')[0]
      self._say(f'Weights & Biases is off for this session: {reason}')

  def _opened(self) -> Any:
    """Returns the run, begun or continued at first use."""
    if self._run is not None:
      return self._run
    import wandb

    # wandb refuses a mode that it does not know.
    mode: Any = os.environ.get('WANDB_MODE')
    if mode is None and not wandb.login(prompt=False):
      mode = 'offline'
      self._say(
        'Weights & Biases: not logged in, so the run is recorded in '
        f'{self._workdir / "wandb"}; `wandb login` and `wandb sync` send it'
      )
    self._run = wandb.init(
      project=self._project,
      name=self._name,
      id=self._run_id(),
      resume='allow',
      dir=str(self._workdir),
      config=dict(self._config),
      mode=mode,
      settings=wandb.Settings(silent=True, console='off'),
    )
    self._run.define_metric('*', step_metric='step')
    return self._run

  def _run_id(self) -> str:
    """Returns the id that this run has, or gets now, in the project."""
    path = self._workdir / RUN
    if path.exists():
      remedy = 'Remove it: the run then begins anew at Weights & Biases.'
      saved = json_file.read(path, _SavedRun, remedy=remedy)
      if saved['project'] == self._project:
        return saved['id']
    run: _SavedRun = {'project': self._project, 'id': secrets.token_hex(4)}
    atomic_files.write_text_atomically(path, json.dumps(run) + '\n')
    return run['id']
