"""One update, jitted and donated: (state, batch) -> (state, scalars).

  key    = fold_in(state.key, state.step), then fold_in(key, i) in microbatch i
  grads  = gradient of the mean loss over the global batch
  params = params + tx(clip(grads));  ema = average of params

The same state and batch always give the same next state.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from cdm import sharding
from cdm.train import ema

# Edges of the log-SNR bins in which the loss is reported. Most of the training
# distribution of every schedule here lies in -10..10.
LEVEL_EDGES = (-6.0, -2.0, 2.0, 6.0)
LEVEL_NAMES = ('below_-6', '-6_to_-2', '-2_to_2', '2_to_6', 'above_6')


class Ratio(NamedTuple):
  """A mean kept as its parts, so that means over unequal parts add up."""

  total: jax.Array  # []
  count: jax.Array  # []


def make_step(
  loss,
  tx,
  *,
  mesh,
  ema_decay,
  ema_warmup=True,
  accumulation=1,
  shardings=None,
  draw=None,
):
  """Builds the training step.

  Args:
    loss: (params, batch, *, key, train) -> ([B], {name: [B] or scalar}). If it
      returns 'logsnr' [B], the loss is also reported by noise level.
    tx: optimizer.Optimizer.
    mesh: the mesh; the batch is split over `data` and `fsdp`.
    ema_decay: see ema.update.
    ema_warmup: see ema.update.
    accumulation: number of microbatches whose gradients are averaged. A loss
      that draws nothing gives what the whole batch would give.
    shardings: TrainState of shardings; None replicates the state.
    draw: (key, B) -> {name: [B]}, put into the batch before it is cut into
      microbatches: what is to be drawn once for the whole of it.

  Returns:
    Jitted (state, batch) -> (state, scalars); `state` is donated. `scalars`
    are [] float32, or Ratio where some batches have nothing to average.
  """
  if shardings is None:
    shardings = sharding.replicated(mesh)

  places = getattr(shardings, 'params', shardings)

  def whole_loss(params, *args, **kwargs):
    return loss(sharding.gather_over_fsdp(params, places), *args, **kwargs)

  def step(state, batch):
    size = jax.tree.leaves(batch)[0].shape[0]
    sharding.check_batch(size, mesh, accumulation=accumulation)
    key = jax.random.fold_in(state.key, state.step)
    if draw is not None:
      # Microbatches fold in 0 to accumulation - 1.
      whole = jax.random.fold_in(key, accumulation)
      batch = {**batch, **draw(whole, jax.tree.leaves(batch)[0].shape[0])}
    grads, sums = _gradient(
      whole_loss,
      state.params,
      batch,
      key=key,
      accumulation=accumulation,
      mesh=mesh,
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = ema.update(
      state.ema_params, params, state.step, decay=ema_decay, warmup=ema_warmup
    )
    scalars = _means(sums) | {
      'grad_norm': optax.tree.norm(grads),  # before clipping
      'learning_rate': tx.learning_rate(state.step),
      'param_norm': optax.tree.norm(params),
    }
    state = state.replace(
      step=state.step + 1,
      params=params,
      ema_params=ema_params,
      opt_state=opt_state,
    )
    return state, scalars

  return jax.jit(
    step,
    in_shardings=(shardings, sharding.batch_sharding(mesh)),
    out_shardings=(shardings, sharding.replicated(mesh)),
    donate_argnums=0,
  )


def _gradient(loss, params, batch, *, key, accumulation, mesh):
  """-> (gradient of the mean loss, {name: Ratio}) over the whole batch."""

  def objective(params, batch, key):
    losses, scalars = loss(params, batch, key=key, train=True)
    return losses.mean(), _sums(losses, scalars, batch)

  gradient = jax.grad(objective, has_aux=True)
  if accumulation == 1:
    return gradient(params, batch, jax.random.fold_in(key, 0))

  def add(total, part):
    i, microbatch = part
    grads, sums = gradient(params, microbatch, jax.random.fold_in(key, i))
    return jax.tree.map(jnp.add, total, grads), sums

  parts = (jnp.arange(accumulation), _split(batch, accumulation, mesh))
  total, sums = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)
  grads = jax.tree.map(lambda g: g / accumulation, total)
  return grads, jax.tree.map(lambda s: s.sum(axis=0), sums)


def _split(batch, parts, mesh):
  """[B, ...] -> [parts, B / parts, ...]; no example leaves its device.

  Microbatch i takes every parts-th example from i: a contiguous cut would put
  a microbatch on a few devices and move it to the others.
  """
  spec = PartitionSpec(None, sharding.BATCH_AXES)

  def split(x):
    x = x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

  return jax.tree.map(split, batch)


def _sums(losses, scalars, batch):
  """Losses [B] and what came with them -> {name: Ratio}."""
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
    sums |= _loss_by_level(losses, logsnr)
  return sums | {'loss': _ratio(losses)}


def _ratio(value):
  value = jnp.asarray(value, jnp.float32)
  return Ratio(value.sum(), jnp.float32(value.size))


def _loss_by_level(losses, logsnr):
  """losses, logsnr: [B] -> the loss in each bin of log-SNR."""
  bins = jnp.searchsorted(jnp.asarray(LEVEL_EDGES, jnp.float32), logsnr)  # [B]
  member = jax.nn.one_hot(bins, len(LEVEL_NAMES), dtype=jnp.float32)  # [B, 5]
  totals = jnp.where(member > 0, losses[:, None], 0.0).sum(axis=0)  # [5]
  counts = member.sum(axis=0)  # [5]
  return {
    f'loss_at_logsnr/{name}': Ratio(totals[i], counts[i])
    for i, name in enumerate(LEVEL_NAMES)
  }


def _means(sums):
  """Divides what is never empty; bins stay Ratio."""
  return {
    name: s if name.startswith('loss_at_logsnr/') else s.total / s.count
    for name, s in sums.items()
  }
