"""Makes averages of widths that a run has not kept, from its snapshots.

  average = sum of c_i snapshot_i            post-hoc EMA, [EDM2] sec. 3.2

The coefficients are those of `ops.power_function`, in float64; the sum is
float32. A width is refused if the snapshots cannot express it: if the response
of the sum is not the wanted one, or if the coefficients are so large that the
rounding of the snapshots shows.
"""

import functools
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cdm.checkpointing import average_names, reader, snapshot_reader
from cdm.ops import power_function
from cdm.reporting import text_table

# Ours: what shows neither in a response nor in samples. docs/averages.md
# has the residuals of runs with 8 to 256 snapshots.
MOST_RESIDUAL = 0.05
MOST_NOISE = 0.01
# Root mean square of the relative error of rounding to nearest.
ROUNDING = {'float16': 2.1e-4, 'float32': 2.5e-8}
# A coefficient below this changes no digit of float32.
_LEAST = 1e-9


class Snapshots(NamedTuple):
  """The snapshots that an average of one step can be made of.

  Attributes:
    workdir: work directory of the run.
    steps: their steps, up to that of the average, ascending.
    stds: widths of the averages that each holds.
    dtype: in which they are written.
  """

  workdir: pathlib.Path
  steps: list[int]
  stds: list[float]
  dtype: str

  @property
  def terms(self) -> list[tuple[int, float]]:
    """The (step, width) of every average that they hold."""
    return [(step, std) for step in self.steps for std in self.stds]

  def fits(self, wanted: Sequence[float]) -> list[power_function.Fit]:
    """Returns how to make averages of these widths, of the last step."""
    times, stds = zip(*self.terms, strict=True)
    return power_function.fits(times, stds, time=self.steps[-1], wanted=wanted)

  def noise(self, fit: power_function.Fit) -> float:
    """Returns the relative error of a parameter by the snapshots' rounding."""
    return fit.gain * ROUNDING[self.dtype]

  def expresses(self, fit: power_function.Fit) -> bool:
    """Returns whether the average of a fit is what it should be."""
    return fit.residual <= MOST_RESIDUAL and self.noise(fit) <= MOST_NOISE


def find(workdir: pathlib.Path, step: int | None = None) -> Snapshots:
  """Finds the snapshots up to a step; a collective.

  Args:
    workdir: work directory of a run.
    step: step of the average, of which there must be a snapshot; None is that
      of the last one.

  Raises:
    FileNotFoundError: there is no such snapshot.
  """
  steps = snapshot_reader.steps(workdir)
  if not steps:
    raise FileNotFoundError(
      f'{workdir} has no {snapshot_reader.FOLDER}/, from which an average of '
      'another width could be made. Train with '
      '--config.ema.power_stds="(0.05, 0.10)" and '
      '--config.ema.snapshot_every_steps=NUMBER.'
    )
  if step is None:
    step = steps[-1]
  if step not in steps:
    raise FileNotFoundError(
      f'{workdir} has no snapshot of step {step}; there are those of steps '
      f'{steps}. Give one of them with --at=STEP.'
    )
  stds, dtype = snapshot_reader.contents(workdir, step)
  return Snapshots(workdir, [s for s in steps if s <= step], stds, dtype)


def widths(snapshots: Snapshots) -> tuple[float, float]:
  """Returns the ends of the range of widths that snapshots express.

  It is that around the first width that was kept, in thousandths.
  """
  steps = range(1, int(1000 * power_function.MOST_STD) + 1)
  fits = snapshots.fits([n / 1000 for n in steps])
  good = dict(zip(steps, map(snapshots.expresses, fits), strict=True))
  low = high = round(1000 * snapshots.stds[0])
  while good.get(low - 1):
    low -= 1
  while good.get(high + 1):
    high += 1
  return low / 1000, high / 1000


def listing(snapshots: Snapshots, shown: Sequence[float]) -> list[str]:
  """Returns lines that say what snapshots hold and express.

  Args:
    snapshots: what is told of.
    shown: widths of the table.
  """
  low, high = widths(snapshots)
  fits = snapshots.fits(shown)
  rows = [('width', 'response off by', 'rounding', '')]
  for std, fit in zip(shown, fits, strict=True):
    error, noise = f'{fit.residual:.2%}', f'{snapshots.noise(fit):.3%}'
    refused = '' if snapshots.expresses(fit) else 'not expressed'
    rows.append((f'{std:g}', error, noise, refused))
  kept = ' and '.join(f'{std:g}' for std in snapshots.stds)
  steps = snapshots.steps
  return [
    f'{len(steps)} snapshots of the widths {kept} in {snapshots.dtype}, steps '
    f'{_ranges(steps)}',
    f'averages of step {steps[-1]} (condition number {fits[0].condition:.2g}):',
    '',
    *text_table.columns(rows),
    '',
    f'widths that they express: {low:g} to {high:g} (response off by at most '
    f'{MOST_RESIDUAL:.0%}, rounding at most {MOST_NOISE:.0%} of a parameter)',
  ]


def _ranges(steps):
  """Returns steps in words; those at even distances as their ends."""
  distances = {b - a for a, b in itertools.pairwise(steps)}
  if len(steps) > 3 and len(distances) == 1:
    return f'{steps[0]}, {steps[1]}, ..., {steps[-1]}'
  return ', '.join(map(str, steps))


def check(snapshots: Snapshots, std: float, fit: power_function.Fit) -> None:
  """Raises ValueError if snapshots do not express a width."""
  if snapshots.expresses(fit):
    return
  low, high = widths(snapshots)
  raise ValueError(
    f'std={std}: the {len(snapshots.steps)} snapshots of '
    f'{snapshots.workdir} up to step {snapshots.steps[-1]} do not express this '
    f'width: the response is off by {fit.residual:.1%} (at most '
    f'{MOST_RESIDUAL:.0%}) and their rounding to {snapshots.dtype} by '
    f'{snapshots.noise(fit):.2%} of a parameter (at most '
    f'{MOST_NOISE:.0%}); they express {low} to {high}. '
    'More snapshots express more: --config.ema.snapshot_every_steps.'
  )


def make(
  snapshots: Snapshots, abstract: Any, std: float
) -> tuple[Any, power_function.Fit]:
  """Makes the average of a width, of the last step; a collective.

  One snapshot is in memory at a time beside the sum.

  Args:
    snapshots: what it is made of.
    abstract: tree of ShapeDtypeStructs with shardings.
    std: the width.

  Returns:
    (tree of float32 jax.Array, Fit).

  Raises:
    ValueError: the snapshots do not express this width, or overflowed.
  """
  try:
    (fit,) = snapshots.fits([std])
  except ValueError as error:
    raise ValueError(f'std={std}: {error}.') from None
  check(snapshots, std, fit)
  total = None
  for (step, kept), c in zip(snapshots.terms, fit.coefficients, strict=True):
    if abs(c) < _LEAST:
      continue
    term = snapshot_reader.read(
      snapshots.workdir, abstract, step=step, std=kept
    )
    c = jnp.float32(c)
    total = _scaled(c, term) if total is None else _sum(total, c, term)
  if not bool(_is_finite(total)):
    raise ValueError(
      f'std={std}: the snapshots of {snapshots.workdir} hold a number '
      f'that {snapshots.dtype} cannot hold, or that is not finite. Train with '
      "--config.ema.snapshot_dtype='float32'."
    )
  return total, fit


def restore(
  workdir: pathlib.Path, abstract: Any, step: int, average: str
) -> tuple[Any, int]:
  """Returns (parameters, step) of an average that is kept or can be made.

  Args:
    workdir: work directory of a run.
    abstract: see `reader.restore_ema`.
    step: step of the checkpoint.
    average: name of the average.

  Raises:
    ValueError: there is no such average, and it cannot be made.
    FileNotFoundError: there are no snapshots to make it of.
  """
  if average == average_names.MAIN:
    return reader.restore_ema(workdir, abstract, step=step)
  kind, std = average_names.parse(average)
  kept = reader.averages(reader.folder(workdir) / str(step))
  if kind != average_names.STD or average in kept:
    return reader.restore_ema(workdir, abstract, step=step, average=average)
  made, _ = make(find(workdir, step), abstract, std)
  return made, step


@jax.jit
def _scaled(c, term):
  return jax.tree.map(lambda x: c * x.astype(jnp.float32), term)


@functools.partial(jax.jit, donate_argnums=0)
def _sum(total, c, term):
  return jax.tree.map(lambda t, x: t + c * x.astype(jnp.float32), total, term)


@jax.jit
def _is_finite(tree):
  finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
  return jnp.stack(finite).all()
