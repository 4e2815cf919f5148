"""Draws the curves of a run for `cdm report`: losses and held-out scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdm.checkpointing.reader import Best
from cdm.reporting import html_page, line_chart
from cdm.training import eval_section
from cdm.training.overfitting import points

# Scalar -> label of the y axis of its own figure.
SCORES = {
  eval_section.PSNR: 'PSNR, dB',
  eval_section.SSIM: 'SSIM',
  eval_section.FID: 'FID',
}


def figures(
  name: str, rows: Sequence[Mapping[str, Any]], best: Best | None
) -> list[html_page.Html]:
  """Returns the figures of a run.

  Args:
    name: name of the run.
    rows: its scalars, see `metric_writer.read_scalars`.
    best: its best checkpoint, which is marked, or None.
  """
  held_out = points(rows, eval_section.EMA_LOSS)
  loss = {name: points(rows, 'loss')}
  caption = f'Training loss of {name}'
  if held_out:
    loss = {
      'training': loss[name],
      'held out, EMA': held_out,
      'held out, raw': points(rows, eval_section.LOSS),
    }
    caption += ', and the loss of its parameters on held-out images'
  found = [
    html_page.curve_svg(
      loss,
      caption=_with_best(caption, best, held_out),
      marks=_mark(best, held_out),
    )
  ]
  for scalar, label in SCORES.items():
    own = points(rows, scalar)
    if not own:
      continue
    series = {name: own}
    if bicubic := points(rows, f'{scalar}_bicubic'):
      series['bicubic'] = bicubic
    caption = f'{label.split(",")[0]} of held-out images, {name}'
    found.append(
      html_page.curve_svg(
        series,
        caption=_with_best(caption, best, own),
        axes=line_chart.Axes(y_label=label),
        smoothing=0.0,
        marks=_mark(best, own),
      )
    )
  return found


def _mark(best, curve):
  """Returns [point of the curve at the best step], or []."""
  return [p for p in curve if best is not None and p[0] == best['step']]


def _with_best(caption, best, curve):
  if not _mark(best, curve):
    return caption
  return (
    f'{caption}; the ring is the best checkpoint by {best["metric"]}, of step '
    f'{best["step"]}'
  )
