"""Builds the jitted training step, (state, batch) -> (state, scalars).

  key    = fold_in(state.key, state.step), for the whole batch
  grads  = gradient of the mean loss over the global batch
  params = params + tx(clip(grads));  ema = average of params

The same state and batch always give the same next state. The state is donated.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from cdm.distributed import compiler_options, device_mesh, partitioning
from cdm.training import ema, optimizer
from cdm.training.optimizer import Optimizer
from cdm.training.state import TrainState

# Edges of the log-SNR bins in which the loss is reported. Most of the training
# distribution of every schedule here lies in -10..10.
LEVEL_EDGES = (-6.0, -2.0, 2.0, 6.0)
LEVEL_NAMES = ('below_-6', '-6_to_-2', '-2_to_2', '2_to_6', 'above_6')


class Ratio(NamedTuple):
  """A mean kept as its parts, so that means over unequal parts add up."""

  total: jax.Array | float  # []
  count: jax.Array | float  # []


def make_step(
  loss: Callable,
  tx: Optimizer,
  *,
  mesh: jax.sharding.Mesh,
  ema_decay: float,
  ema_warmup: bool = True,
  accumulation: int = 1,
  shardings: Any = None,
  draw: Callable | None = None,
) -> Callable:
  """Builds the training step.

  Args:
    loss: (params, batch, *, key, train) -> ([B], {name: [B] or scalar}). If it
      returns 'logsnr' [B], the loss is also reported by noise level. Every
      microbatch, on every device, is given the key of the whole batch: the
      loss folds in the index of each example, batch['example'] [B], see
      `ops.keys.example_keys`.
    tx: the optimizer.
    mesh: the device mesh; the batch is split over `data` and `fsdp`.
    ema_decay, ema_warmup: see `ema.update`.
    accumulation: number of microbatches whose gradients are averaged. Each
      device averages its own, and the devices exchange gradients once.
    shardings: TrainState of shardings; None replicates the state.
    draw: (key, B) -> {name: [B]}, random variables that are drawn once for the
      whole batch and added to it before it is cut into microbatches; None
      adds none.

  Returns:
    Jitted (state, batch) -> (state, scalars); `state` is donated. `scalars`
    are [] float32, or a `Ratio` if some batches have nothing to average.
  """
  if shardings is None:
    shardings = device_mesh.replicated(mesh)

  places = getattr(shardings, 'params', shardings)

  def step(state: TrainState, batch: Mapping[str, jax.Array]):
    size = jax.tree.leaves(batch)[0].shape[0]
    device_mesh.check_batch(size, mesh, accumulation=accumulation)
    key = jax.random.fold_in(state.key, state.step)
    draw_key, key = jax.random.split(key)
    drawn = {'example': jnp.arange(size)}
    if draw is not None:
      drawn |= draw(draw_key, size)
    batch = {**batch, **device_mesh.split_batch(drawn, mesh)}
    grads, sums = _gradient(
      loss,
      partitioning.gather_over_fsdp(state.params, places),
      batch,
      key=key,
      accumulation=accumulation,
      mesh=mesh,
    )
    grads = jax.lax.with_sharding_constraint(grads, places)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = ema.update(
      state.ema_params, params, state.step, decay=ema_decay, warmup=ema_warmup
    )
    scalars = _means(sums) | {
      'grad_norm': optax.tree.norm(grads),  # before clipping
      'learning_rate': tx.learning_rate(state.step),
    }
    if tx.is_clipped is not None:
      clipped = tx.is_clipped(grads)
      scalars['clip_fraction'] = clipped.astype(jnp.float32)
    after = state.replace(
      step=state.step + 1,
      params=params,
      ema_params=ema_params,
      opt_state=opt_state,
    )
    if tx.skip_nonfinite:
      after, scalars['skipped_steps'] = _without_nonfinite(
        state, after, scalars
      )
    scalars['param_norm'] = optax.tree.norm(after.params)
    return after, scalars

  return jax.jit(
    step,
    in_shardings=(shardings, device_mesh.batch_sharding(mesh)),
    out_shardings=(shardings, device_mesh.replicated(mesh)),
    donate_argnums=0,
    compiler_options=compiler_options.training_step(mesh.devices.flat),
  )


def _without_nonfinite(before, after, scalars):
  """Undoes an update whose loss or gradient is not finite, except its step.

  Returns (TrainState, [] float32: 1 if the update was undone, else 0).
  """
  finite = jnp.isfinite(scalars['loss']) & jnp.isfinite(scalars['grad_norm'])

  def choose(old, new):
    return jax.tree.map(lambda a, b: jnp.where(finite, b, a), old, new)

  kept = after.replace(
    params=choose(before.params, after.params),
    ema_params=choose(before.ema_params, after.ema_params),
    opt_state=optimizer.skipped(
      before.opt_state, after.opt_state, is_kept=finite
    ),
  )
  return kept, 1 - finite.astype(jnp.float32)


def _gradient(loss, params, batch, *, key, accumulation, mesh):
  """Returns (gradient of the mean loss, {name: Ratio}) over the whole batch."""
  size = jax.tree.leaves(batch)[0].shape[0]

  def objective(params, batch):
    # The key is cloned, because every microbatch uses it; the loss folds in the
    # index of each example.
    given = dict(key=jax.random.clone(key), train=True)
    losses, scalars = loss(params, batch, **given)
    return losses.sum() / size, _sums(losses, scalars, batch)

  gradient = jax.grad(objective, has_aux=True)
  if accumulation == 1:
    return gradient(params, batch)

  def add(total, microbatch):
    return jax.tree.map(jnp.add, total, gradient(params, microbatch)), None

  def accumulate(params, batch):
    """Sums over the microbatches of one shard, then over the shards, once."""
    parts = jax.tree.map(
      lambda x: x.reshape(accumulation, -1, *x.shape[1:]), batch
    )
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype),
      jax.eval_shape(gradient, params, first),
    )
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.lax.psum(total, device_mesh.BATCH_AXES)

  return jax.shard_map(
    accumulate,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec(device_mesh.BATCH_AXES)),
    out_specs=PartitionSpec(),
    axis_names=set(device_mesh.BATCH_AXES),
    # With the check, every microbatch would be summed over the devices.
    check_vma=False,
  )(params, batch)


def _sums(losses, scalars, batch):
  """Turns losses [B] and the loss's scalars into {name: Ratio}."""
  size = jax.tree.leaves(batch)[0].shape[0]
  if losses.shape != (size,):
    raise ValueError(
      f'The loss of a batch of {size} has shape {list(losses.shape)}; a loss '
      f'returns one number per example, [{size}].'
    )
  scalars = dict(scalars)
  logsnr = scalars.pop('logsnr', None)
  sums = {name: _ratio(value) for name, value in scalars.items()}
  if logsnr is not None:
    sums |= loss_by_level(losses, logsnr)
  return sums | {'loss': _ratio(losses)}


def _ratio(value):
  value = jnp.asarray(value, jnp.float32)
  return Ratio(value.sum(), jnp.float32(value.size))


def loss_by_level(
  losses: jax.Array, logsnr: jax.Array, there: jax.Array | None = None
) -> dict[str, Ratio]:
  """Returns the loss in each bin of log-SNR, as {'loss_at_logsnr/BIN': Ratio}.

  Args:
    losses: [B].
    logsnr: [B].
    there: bool [B], which examples count; None counts all.
  """
  bins = jnp.searchsorted(jnp.asarray(LEVEL_EDGES, jnp.float32), logsnr)  # [B]
  member = jax.nn.one_hot(bins, len(LEVEL_NAMES), dtype=jnp.float32)  # [B, 5]
  if there is not None:
    member = jnp.where(there[:, None], member, 0.0)
  totals = jnp.where(member > 0, losses[:, None], 0.0).sum(axis=0)  # [5]
  counts = member.sum(axis=0)  # [5]
  return {
    f'loss_at_logsnr/{name}': Ratio(totals[i], counts[i])
    for i, name in enumerate(LEVEL_NAMES)
  }


def _means(sums):
  """Divides each Ratio, except those of the bins, which may be empty."""
  return {
    name: s if name.startswith('loss_at_logsnr/') else s.total / s.count
    for name, s in sums.items()
  }
