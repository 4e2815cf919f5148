"""Writes a work directory that holds one average of another run's parameters.

  OUT/checkpoints/<step>  the average as ema_params, and the config of the run
     /average.json        what it was made of, see `Origin`
     /classes.json        as the run has it

Commands that draw images use it like any other.
"""

import json
import os
import pathlib
from typing import TypedDict

from cdm.checkpointing import folder_rename, reader, snapshot_reader, writer
from cdm.config import loader, placement, stage
from cdm.data import class_names
from cdm.data.files import atomic_files
from cdm.distributed import bucket_folders, collectives
from cdm.sampling import posthoc_average

FILE = 'average.json'
# Whatever the run was trained on, each device here has a part.
MESH = dict(data=1, fsdp=-1, tensor=1, split='all', rules=())


class Origin(TypedDict):
  """What an average was made of.

  Attributes:
    workdir: work directory of the run.
    step: step that it is the average of.
    std: its width.
    snapshots: number of snapshots.
    residual: what its response lacks, see `power_function.Fit`.
    noise: relative error of a parameter by the rounding of the snapshots.
  """

  workdir: str
  step: int
  std: float
  snapshots: int
  residual: float
  noise: float


def write(
  snapshots: posthoc_average.Snapshots, out: pathlib.Path, std: float
) -> Origin:
  """Makes an average and writes it into a new work directory; a collective.

  Args:
    snapshots: what it is made of.
    out: the directory; made if it is missing.
    std: the width.

  Raises:
    ValueError: the snapshots do not express the width, or `out` holds
      checkpoints already.
    OSError: `out` cannot be written.
  """
  if reader.agreed_steps(out):
    raise ValueError(
      f'--out={out} holds checkpoints already; give a new folder.'
    )
  step = snapshots.steps[-1]
  text = snapshot_reader.read_config(snapshots.workdir, step)
  saved = loader.from_json(text, snapshots.workdir)
  stage.refuse_classifier(saved, f'averaged (in {snapshots.workdir})')
  built = stage.stage(saved)
  mesh = placement.drawing_mesh(MESH)
  params, fit = posthoc_average.make(
    snapshots, placement.placed_params(built.method, MESH, mesh), std
  )
  folder_rename.check(out)
  with writer.Checkpointer(out, config=text) as checkpointer:
    if collectives.is_first():
      class_names.write(out, class_names.read(snapshots.workdir))
    checkpointer.write_config()
    checkpointer.save(step, {'ema_params': params}, data_state=None)
    checkpointer.wait()
  origin: Origin = {
    'workdir': bucket_folders.shown(os.fspath(snapshots.workdir)),
    'step': step,
    'std': std,
    'snapshots': len(snapshots.steps),
    'residual': fit.residual,
    'noise': snapshots.noise(fit),
  }
  if collectives.is_first():
    text = json.dumps(origin, indent=1) + '\n'
    atomic_files.write_text_atomically(out / FILE, text)
  return origin
