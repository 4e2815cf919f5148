"""A page that enlarges pictures, served as `cdm serve` serves it."""

import contextlib
import functools
import json
import pathlib
import sys
import threading

import jax
import numpy as np
from PIL import Image
from support import smoke_runs

from cdm.checkpointing import packed_stage
from cdm.cli.commands import serve
from cdm.cli.web import local_server
from cdm.cli.web.enlarging.serving_limits import ServingLimits
from cdm.config import loader, stage

STAND_IN = pathlib.Path(__file__).parent / 'stand_in_worker.py'
PART = 24  # pixels of the part that is shown first
# A mean and two steps over it, with a reach of few pixels.
SMALL = [
  ('model.mean.features', '16'), ('model.mean.num_blocks', '1'),
  ('model.mean.embedding_features', '3'),
  ('model.widths', '(4, 4, 4)'), ('model.blocks', '(0, 1, 0)'),
  ('model.embedding_features', '4'), ('pipeline.image_size', '32'),
  ('lowres.size', '8'), ('sampler.grid.num_steps', '2'),
]  # fmt: skip


@functools.cache
def packed():
  """-> path of a small `photo_detailed` with random weights, in one file."""
  c = loader.load(smoke_runs.CONFIGS / 'photo_detailed.py', SMALL)
  shapes = jax.eval_shape(stage.stage(c).method.init, jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes
  )
  path = smoke_runs.temporary() / 'detailed.safetensors'
  packed_stage.write(
    path,
    params,
    config=loader.to_json(c),
    step=1,
  )
  return path


def worker(limits, **given):
  """-> the command of a real worker, for the small model."""
  told = {
    'samples': None, 'at': None, 'batch_per_device': None, 'part': PART,
    'redraws': [], 'limits': limits._asdict(), **given,
  }  # fmt: skip
  return [sys.executable, '-m', serve.WORKER, json.dumps(told)]


def stand_in(*words):
  """-> the command of a program that stands for a worker, without JAX."""
  return [sys.executable, str(STAND_IN), *map(str, words)]


@contextlib.contextmanager
def running(command, folder, limits=None, place=None):
  """Serves in a thread. -> (HOST:PORT, link, csrf, EnlargingApp)."""
  import uvicorn

  from cdm.cli.web.enlarging.enlarging_app import EnlargingApp
  from cdm.cli.web.enlarging.task_queue import TaskQueue
  from cdm.cli.web.patient_protocol import PatientProtocol
  from cdm.cli.web.request_guard import Limits, RequestGuard

  limits = limits or ServingLimits()
  place = local_server.check(place or local_server.Place())
  opened = local_server.listen(place)
  door = local_server.door(place)
  queue = TaskQueue(command, limits)
  made = EnlargingApp(queue, folder, door.csrf, limits)
  guard = Limits(limits.upload_bytes, limits.upload_seconds)
  server = uvicorn.Server(
    uvicorn.Config(
      RequestGuard(made.app, door, guard),
      http=PatientProtocol,
      **local_server.SETTINGS,
    )
  )
  thread = threading.Thread(target=server.run, args=([opened],), daemon=True)
  thread.start()
  link = local_server.address(place, opened)
  try:
    yield f'127.0.0.1:{opened.getsockname()[1]}', link, door.csrf, made
  finally:
    server.should_exit = server.force_exit = True
    thread.join(10)
    made.close()
    queue.close()
    opened.close()


def photo(path, width=40, height=30, seed=0, **options):
  """Writes a picture with edges and texture. -> its path."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (height // 5, width // 5, 3), np.uint8)
  image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BOX)
  image.save(path, **options)
  return path
