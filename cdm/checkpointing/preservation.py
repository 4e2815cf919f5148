"""Chooses which checkpoints of a run are kept when a newer one is complete."""

from collections.abc import Sequence


class Preservation:
  """The rules by which checkpoints are kept; the others are deleted.

  Attributes:
    best_step: step of the best checkpoint, which is kept too; None keeps none.
      It may change between two saves.
  """

  def __init__(
    self,
    keep: int,
    keep_every_steps: int | None,
    save_every_steps: int | None,
    best_step: int | None = None,
  ) -> None:
    """Takes the rules; see `writer.Checkpointer.__init__` for the first three.

    Args:
      keep: number of newest checkpoints to keep.
      keep_every_steps: checkpoints at multiples of this are kept for good.
      save_every_steps: the newest checkpoint at a multiple of this is kept.
      best_step: see the class.
    """
    self._keep = keep
    self._keep_every_steps = keep_every_steps
    self._save_every_steps = save_every_steps
    self.best_step = best_step

  def kept(self, steps: Sequence[int]) -> list[int]:
    """Returns which of the checkpoints are kept, in ascending order.

    Args:
      steps: of all complete checkpoints.
    """
    steps = sorted(steps)
    kept = {*steps[-self._keep :], self.best_step}
    if self._keep_every_steps:
      kept |= {step for step in steps if step % self._keep_every_steps == 0}
    if self._save_every_steps:
      scheduled = (step for step in steps if step % self._save_every_steps == 0)
      kept |= {max(scheduled, default=-1)}
    return [step for step in steps if step in kept]
