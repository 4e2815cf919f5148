"""Restores a classifier that `cdm train` trained and prepares it for testing.

The statistics of its normalisation layers are averaged over batches of the
training data, since a checkpoint holds the parameters alone. It is tested on
the middle of every image.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cdm.checkpointing import reader
from cdm.config import datasets, loader, placement, stage
from cdm.distributed import compiler_options, device_mesh
from cdm.evaluation.batched_network import BatchedNetwork
from cdm.evaluation.metrics import top_k
from cdm.methods import classification
from cdm.reporting.progress import Progress
from cdm.training import program

STATISTICS_SEED = 3  # a use of config.seed, see `program.seed_of`


def restore(
  c: loader.ConfigDict,
  workdir: str | os.PathLike,
  source: Any,
  *,
  batch_size: int,
) -> tuple[BatchedNetwork, int]:
  """Restores a trained classifier and averages its statistics.

  Args:
    c: config of the classifier.
    workdir: directory that `cdm train` wrote.
    source: the data that it was trained on, see `data.source`.
    batch_size: images that this process tests at once.

  Returns:
    (BatchedNetwork, step of the checkpoint).
  """
  built, mesh = stage.stage(c), placement.drawing_mesh(c.mesh)
  tester = built.tester
  assert tester is not None  # a classifier has one
  params, step = reader.restore_ema(
    workdir, placement.placed_params(built.method, c.mesh, mesh)
  )
  statistics = gather_statistics(c, built, params, mesh, source)
  whole = jax.tree.map(device_mesh.fetch, params)
  network = BatchedNetwork(
    lambda variables, image: tester.logits(*variables, image),
    (whole, statistics),
    batch_size=batch_size,
  )
  return network, step


def gather_statistics(
  c: loader.ConfigDict,
  built: Any,
  params: Any,
  mesh: jax.sharding.Mesh,
  source: Any,
) -> Any:
  """Averages the statistics of the normalisation layers over training batches.

  There are `c.method.statistics_batches` batches of the size used in training.
  Their order, crops and flips come from a seed of their own. The average is
  taken in float64.

  Args:
    c: config of the classifier.
    built: its `built_stage.Stage`.
    params: its parameters, placed on `mesh`.
    mesh: the device mesh.
    source: the data that it was trained on.

  Returns:
    the statistics that `Tester.logits` takes, a tree of float32 NumPy arrays.
  """
  seed = program.seed_of(c, STATISTICS_SEED)
  boxed = built.boxes(params)
  everywhere = device_mesh.replicated(mesh)

  def moments(params, batch, n):
    key = jax.random.fold_in(jax.random.key(seed), n)
    return built.tester.moments(boxed(params), batch, key=key)

  run = jax.jit(
    moments,
    out_shardings=everywhere,
    compiler_options=compiler_options.for_devices(mesh.devices.flat),
  )
  rows = device_mesh.local_rows(mesh, c.train.batch_size)
  batches = datasets.training_batches(c, source, seed=seed, rows=rows)
  count, total = built.objective.statistics_batches, None
  try:
    with Progress('statistics', total=count, unit='batch') as bar:
      for n in range(count):
        batch = device_mesh.shard_batch(next(batches), mesh)
        found = jax.tree.map(_float64, run(params, batch, np.uint32(n)))
        total = found if n == 0 else jax.tree.map(np.add, total, found)
        bar.advance(1)
  finally:
    batches.close()
  mean = jax.tree.map(lambda x: x / count, total)
  return jax.tree.map(np.float32, classification.moments_to_statistics(mean))


def _float64(array):
  return np.asarray(array.addressable_data(0), np.float64)


def ranker(
  network: BatchedNetwork,
) -> Callable[[Sequence[int], Any], tuple[Sequence[int], np.ndarray]]:
  """Returns the argument `rank` of `ranks.rank_images` for a network."""

  def rank(indices, batch):
    images, labels = batch
    return indices, top_k.ranks(network(images), labels)[:, None]

  return rank
