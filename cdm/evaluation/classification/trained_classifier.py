"""Tests a trained classifier: its statistics, then its ranks on held-out data.

statistics: averaged over batches of the data that it was trained on
rank: of the true class, on the middle of every image
"""

import jax
import numpy as np

from cdm.checkpointing import reader
from cdm.config import datasets, placement, stage
from cdm.distributed import compiler_options, device_mesh, partitioning
from cdm.evaluation.batched_network import BatchedNetwork
from cdm.evaluation.metrics import top_k
from cdm.methods import classification
from cdm.reporting.progress import Progress
from cdm.training import program

STATISTICS_SEED = 3  # a use of config.seed, see `program`


def restored(c, workdir, source, *, batch_size):
  """Restores a trained classifier and gathers its statistics.

  Args:
    c: its ConfigDict.
    workdir: as `cdm train` wrote it.
    source: the data that it was trained on.
    batch_size: images tested at once, by this process.

  Returns:
    (BatchedNetwork, step of the checkpoint).
  """
  built, mesh = stage.stage(c), placement.mesh(c.mesh)
  params, step = reader.restore_ema(
    workdir, placement.placed_params(built.method, c.mesh, mesh)
  )
  statistics = gather_statistics(c, built, params, mesh, source)
  whole = jax.tree.map(device_mesh.fetch, params)
  network = BatchedNetwork(
    lambda variables, image: built.tester.logits(*variables, image),
    (whole, statistics),
    batch_size=batch_size,
  )
  return network, step


def gather_statistics(c, built, params, mesh, source):
  """-> the statistics that `Tester.logits` takes, float32 NumPy arrays.

  Over `method.statistics_batches` batches of the training's size, order, crops
  and flips from a seed of their own; averaged in float64.
  """
  seed = program.seed_of(c, STATISTICS_SEED)
  places = jax.tree.map(lambda leaf: leaf.sharding, params)
  everywhere = device_mesh.replicated(mesh)

  def moments(params, batch, n):
    key = jax.random.fold_in(jax.random.key(seed), n)
    params = partitioning.gather_over_fsdp(params, places)
    return built.tester.moments(params, batch, key=key)

  run = jax.jit(
    moments,
    out_shardings=everywhere,
    compiler_options=compiler_options.forward(mesh.devices.flat),
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
  return jax.tree.map(np.float32, classification.statistics_of(mean))


def _float64(array):
  return np.asarray(array.addressable_data(0), np.float64)


def ranker(network):
  """-> rank(numbers, (images, labels)), see `ranks.rank_images`."""

  def rank(numbers, given):
    images, labels = given
    return numbers, top_k.ranks(network(images), labels)[:, None]

  return rank
