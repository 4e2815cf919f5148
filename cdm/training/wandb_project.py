"""Reports a run to Weights & Biases, if its config asks for it."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from cdm.config import loader
from cdm.reporting import wandb_writer

if TYPE_CHECKING:
  from cdm.config.loader import ConfigDict
  from cdm.reporting.metric_writer import Reporter


def add_wandb(reporter: Reporter, c: ConfigDict, workdir: pathlib.Path) -> None:
  """Reports to Weights & Biases too, if the config names a project.

  Args:
    reporter: the reporter; one that is not active gets no other writer.
    c: config of the stage.
    workdir: work directory of the run.
  """
  project = c.train.get('wandb')
  if project:
    reporter.add_writer(
      wandb_writer.WandbWriter(
        workdir,
        project=project,
        name=c.name,
        config=loader.plain(c),
        say=reporter.say,
      )
    )
