"""Two small sets to judge, and a network that is linear in the pixels.

Inception is replaced by it in tests of judging; what Inception computes is
tested in models/test_inception.py.
"""

import os
import signal
import time

import jax
import numpy as np
from PIL import Image

from cdm.evaluation import compare_sets, extract_features, set_metrics
from cdm.evaluation.image_selection import Selection
from cdm.models.inception import Features

SIDE, COUNT = 8, 30


class Projection:
  """Stands for the network: features are linear in the pixels."""

  calls = 0
  fail_at = None

  sizes, metrics = {'fid': 16, 'sfid': 20}, ()

  def __init__(self, params, *, batch_size=None):
    self.batch_size = batch_size or 7

  def start(self, images):
    type(self).calls += 1
    if self.calls == self.fail_at:
      raise KeyboardInterrupt
    return images

  def finish(self, images):
    x = images.reshape(len(images), -1).astype(np.float64) / 255
    # In float64, or a row would depend on how many are beside it.
    pool, spatial, logits = (
      (x[:, : SIDE * SIDE] @ matrix[: min(x.shape[1], SIDE * SIDE)]).astype(
        np.float32
      )
      for matrix in projections()
    )
    return Features(pool, spatial, logits, logits)


def projections():
  rng = np.random.default_rng(5)
  return [
    rng.normal(size=(SIDE * SIDE, n)).astype(np.float32) for n in (16, 20, 12)
  ]


def pictures(seed, count=COUNT):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 200, (count, SIDE, SIDE, 3)).astype(np.uint8)


def prepared(tmp_path, monkeypatch):
  """-> folder with two sets, each as PNGs and as an archive, and weights."""
  monkeypatch.setattr(extract_features, 'Extractor', Projection)
  monkeypatch.setattr(extract_features.inception, 'read', lambda path: None)
  monkeypatch.setattr(Projection, 'calls', 0)
  monkeypatch.setattr(Projection, 'fail_at', None)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return write_sets(tmp_path)


def stand_in(*, log=None, kill_at=None, term_at=None):
  """Puts the projection in the place of the network, in a process of its own.

  Args:
    log: path; a line is added per batch.
    kill_at: batch at which the process is killed, counted from 1.
    term_at: batch at which it gets SIGTERM, and time to tell the others.
  """

  class Logged(Projection):
    def start(self, images):
      started = super().start(images)
      if log is not None:
        with open(
          f'{log}-{jax.process_index()}', 'a', encoding='utf-8'
        ) as file:
          file.write('batch\n')
      if type(self).calls == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
      if type(self).calls == term_at:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)
      return started

  extract_features.Extractor = Logged
  extract_features.inception.read = lambda path: None
  extract_features.SAVE_SECONDS = 0.0


def write_sets(tmp_path):
  """Writes sets a and b into a folder, and returns it."""
  (tmp_path / 'w.pth').write_bytes(b'weights')
  for name, seed in (('a', 1), ('b', 2)):
    images = pictures(seed)
    if name == 'b':
      images = images // 2
    np.savez(tmp_path / f'{name}.npz', arr_0=images)
    (tmp_path / name).mkdir()
    for n, image in enumerate(images):
      Image.fromarray(image).save(tmp_path / name / f'{n:03d}.png')
  return tmp_path


def judge(place, samples='a', reference='b', metrics=('fid', 'is'), **given):
  return compare(
    place / samples,
    None if reference is None else place / reference,
    metrics=metrics,
    weights=place / 'w.pth',
    **given,
  )


def compare(
  samples,
  reference,
  *,
  metrics,
  num=None,
  seed=None,
  allow_few_images=True,
  kid_size=None,
  **network,
):
  """`compare_sets.judge` with its options one by one."""
  return compare_sets.judge(
    samples,
    reference,
    set_metrics.MetricChoice(metrics, allow_few_images, kid_size),
    selection=Selection(num, seed),
    network=network,
  )


def features(name, place):
  with np.load(place / f'{name}.npz') as archive:
    return Projection(None).finish(archive['arr_0'])
