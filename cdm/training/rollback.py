"""Which stretches of data were left out, because the run diverged on them.

  rollbacks.json   [{"to": step, "bad": step, "why": ..., "position": ...}]

A rollback goes back to the checkpoint of step `to` and on with the data after
the batch of step `bad`. The list is written before the run goes on, so a run
that is killed afterwards and finds that checkpoint again takes the same turn.
Noise is folded from the step; what differs after a rollback is the data alone.
"""

import json
import pathlib

from cdm.reporting import atomic_files

FILE = 'rollbacks.json'
POLICIES = ('stop', 'rollback')


class Rollbacks:
  """The rollbacks of one work directory."""

  def __init__(self, workdir, *, limit=0, active=True):
    """Reads what there is.

    Args:
      workdir: of the run.
      limit: how many a run may make; 0 is none.
      active: False never writes (processes but 0).

    Raises:
      ValueError: if the file is not a list of rollbacks.
    """
    self._path = pathlib.Path(workdir) / FILE
    self._active = active
    self.limit = limit
    self.made = []
    if self._path.exists():
      try:
        self.made = json.loads(self._path.read_text())
        self.made[:] = sorted(self.made, key=lambda entry: entry['to'])
      except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
          f'{self._path} is not a list of rollbacks: {error}. Remove it to '
          'train on without them.'
        ) from error

  def permitted(self):
    """Whether one more may be made."""
    return len(self.made) < self.limit

  def resume(self, step):
    """Forgets the rollbacks that a run continued at `step` has yet to make."""
    kept = [entry for entry in self.made if entry['to'] <= step]
    if kept != self.made:
      self.made = kept
      self._write()

  def position(self, step):
    """-> data position to go on with from the checkpoint of `step`, or None.

    None is the position in the checkpoint.
    """
    found = [e['position'] for e in self.made if e['to'] == step]
    return found[-1] if found else None

  def add(self, *, to, bad, why, position):
    """Records a rollback; it is on disk when this returns."""
    self.made.append({'to': to, 'bad': bad, 'why': why, 'position': position})
    self._write()

  def _write(self):
    if self._active:
      text = json.dumps(self.made, indent=1) + '\n'
      atomic_files.write_text_atomically(self._path, text)
