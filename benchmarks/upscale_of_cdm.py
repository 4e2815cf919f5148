"""The process of `upscale.py` that runs a photo model of cdm."""

import dataclasses
import pathlib
import time

import jax
import numpy as np

from benchmarks import step_process
from cdm.data import low_res_inputs
from cdm.distributed import compilation_cache
from cdm.sampling import loaded_model, picture_rows
from cdm.sampling.enlarged_jobs import drawn_together
from cdm.sampling.enlarged_size import Asked, choose
from cdm.sampling.enlargement import Drawn


def start(*, workdir, detail, steps):
  """Returns the functions of the process, see `step_process.serve`.

  Args:
    workdir: work directory or packed stage.
    detail: see `cdm.sampling.canvas_upscaler`; None for a regression.
    steps: of the sampler; None for those of the config.
  """
  bench = Bench(workdir, detail, steps)
  return {'ready': bench.ready, 'run': bench.run, 'peak': bench.peak}


class Bench:
  """A photo model, as `cdm upscale` draws with it."""

  def __init__(self, workdir, detail, steps):
    compilation_cache.enable_compilation_cache()
    choice = loaded_model.Choice(steps=steps)
    model = loaded_model.load(pathlib.Path(workdir), None, choice)
    assert model.upscaler is not None and model.upscaler.canvas is not None
    canvas = model.upscaler.canvas
    self._canvas = (
      canvas if detail is None else dataclasses.replace(canvas, detail=detail)
    )

  def ready(self):
    """Returns what there is to know about the model."""
    sizes = jax.tree.map(np.size, self._canvas.stage.params)
    return {
      'parameters': int(sum(jax.tree.leaves(sizes))),
      'evaluations': self._canvas.evaluations,
      'version': jax.__version__,
    }

  def run(self, *, height, width):
    """Enlarges noise 4x; returns the seconds."""
    step_process.forget_peak()
    low = np.random.default_rng(0).integers(
      0, 256, (height, width, 3), np.uint8
    )
    began = time.perf_counter()
    size = choose((height, width), 4, Asked(scale=4.0), any_factor=True)
    ((_, enlargement),) = drawn_together(self._canvas, [size])
    drawn = Drawn(damage=[low_res_inputs.CLEAN])
    for band in enlargement.bands(picture_rows.WholePictures(low[None]), drawn):
      picture_rows.levels(band, np.uint8)
    return {
      'seconds': time.perf_counter() - began,
      'windows': enlargement.num_windows,
    }

  def peak(self):
    """Returns the most memory that the process has held since `run` began."""
    return {'peak_bytes': step_process.peak_bytes()}


if __name__ == '__main__':
  step_process.serve(start)
