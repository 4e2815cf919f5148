"""Builds the jitted training step, (state, batch) -> (state, scalars).

  key    = fold_in(state.key, state.step), for the whole batch
  grads  = gradient of the mean loss over the global batch
  params = project(params + tx(clip(grads)));  ema = average of params

The same state and batch always give the same next state. The state is donated.
"""

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from cdm.distributed import (
  compiler_options,
  device_mesh,
  parameter_gather,
)
from cdm.training import ema, frozen_state, optimizer
from cdm.training.averaged_state import averages_of
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
  loss: Callable | parameter_gather.LayerwiseLoss,
  tx: Optimizer,
  *,
  mesh: jax.sharding.Mesh,
  ema_decay: float | ema.Exponential,
  averages: Mapping[str, ema.Average] = types.MappingProxyType({}),
  accumulation: int = 1,
  shardings: Any = None,
  draw: Callable | None = None,
) -> Callable:
  """Builds the training step.

  Args:
    loss: (params, batch, *, key, train) -> ([B], {name: [B] or scalar}). If it
      returns 'logsnr' [B], the loss is also reported by noise level. If the
      state has frozen parameters, it takes them as the keyword `frozen`, and
      the number of updates made as batch['update'] [B]. Every microbatch, on
      every device, is given the key of the whole batch: the loss folds in the
      index of each example, batch['example'] [B], see `ops.keys.example_keys`.
      A `LayerwiseLoss` is given its split parameters in boxes, which its
      network gathers layer by layer; for any other loss they are gathered
      before it is called.
    tx: the optimizer.
    mesh: the device mesh; the batch is split over `data` and `fsdp`.
    ema_decay: the decay of the main average, which warms up, or the average.
    averages: what is kept beside the main average, by the keys of the state.
    accumulation: number of microbatches whose gradients are averaged. Each
      device sums the gradients of its own microbatches. Gradients of split
      parameters are summed in their split layout, so each microbatch scatters
      them; all other sums between devices are made once, at the end.
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
  main = ema_decay
  if not isinstance(main, ema.Exponential):
    main = ema.Exponential(main, True)

  def step(state: TrainState, batch: Mapping[str, jax.Array]):
    size = jax.tree.leaves(batch)[0].shape[0]
    device_mesh.check_batch(size, mesh, accumulation=accumulation)
    key = jax.random.fold_in(state.key, state.step)
    draw_key, key = jax.random.split(key)
    drawn = {'example': jnp.arange(size)}
    if draw is not None:
      drawn |= draw(draw_key, size)
    frozen = frozen_state.placed(state, shardings)
    if frozen is not None:
      drawn['update'] = jnp.full(size, state.step)
    batch = {**batch, **device_mesh.split_batch(drawn, mesh)}
    places = getattr(shardings, 'params', shardings)
    if isinstance(places, NamedSharding):  # one for all
      places = jax.tree.map(lambda _: shardings, state.params)
    grads, sums = _gradient(
      loss,
      state.params,
      batch,
      key=key,
      accumulation=accumulation,
      places=places,
      frozen=frozen,
    )
    grads = jax.lax.with_sharding_constraint(grads, places)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    if tx.project is not None:
      params = tx.project(params)
    ema_params = main.update(state.ema_params, params, state.step)
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
    if averages:
      kept = averages_of(state)
      updated = {
        name: average.update(kept[name], params, state.step)
        for name, average in averages.items()
      }
      after = after.replace(averages=updated)
    if tx.skip_nonfinite:
      after, scalars['skipped_steps'] = _without_nonfinite(
        state, after, scalars
      )
    scalars['param_norm'] = optax.tree.norm(after.params)
    return after, scalars

  return jax.jit(
    device_mesh.in_mesh(step, mesh),
    in_shardings=(shardings, device_mesh.batch_sharding(mesh)),
    out_shardings=(shardings, device_mesh.replicated(mesh)),
    donate_argnums=0,
    compiler_options=compiler_options.for_devices(mesh.devices.flat),
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
  if averages := averages_of(after):
    kept = kept.replace(averages=choose(averages_of(before), averages))
  return kept, 1 - finite.astype(jnp.float32)


def _gradient(loss, params, batch, *, key, accumulation, places, frozen):
  """Returns (gradient of the mean loss, {name: Ratio}) over the whole batch."""
  mesh = jax.tree.leaves(places)[0].mesh
  size = jax.tree.leaves(batch)[0].shape[0]
  layerwise = isinstance(loss, parameter_gather.LayerwiseLoss)
  is_split = any(map(parameter_gather.batch_axes, jax.tree.leaves(places)))
  # In a shard_map every device computes the losses of its own examples, and
  # what the devices exchange is written down here. Without one the compiler
  # derives it.
  is_manual = accumulation > 1 or (layerwise and loss.is_sum and is_split)

  def opened(params, places):
    dtype_of = loss.dtype_of if layerwise else None
    params = parameter_gather.box(params, places, dtype_of, is_manual=is_manual)
    return params if layerwise else parameter_gather.gather(params)

  def objective(params, batch, fixed):
    # The key is cloned, because every microbatch uses it; the loss folds in the
    # index of each example.
    given = dict(key=jax.random.clone(key), train=True)
    if frozen is not None:
      given['frozen'] = opened(fixed, frozen.places)
    function = loss.loss if layerwise else loss
    losses, scalars = function(opened(params, places), batch, **given)
    return losses.sum() / size, _sums(losses, scalars, batch)

  gradient = jax.grad(objective, has_aux=True)
  fixed, fixed_places = ((), ()) if frozen is None else frozen
  if not is_manual:
    return gradient(params, batch, fixed)

  specs, fixed_specs = jax.tree.map(
    parameter_gather.batch_spec, (places, fixed_places)
  )
  return jax.shard_map(
    functools.partial(
      _sum_on_devices, gradient, accumulation=accumulation, places=places
    ),
    mesh=mesh,
    in_specs=(specs, PartitionSpec(device_mesh.BATCH_AXES), fixed_specs),
    out_specs=(specs, PartitionSpec()),
    axis_names=set(device_mesh.BATCH_AXES),
    # With the check, every microbatch would be summed over the devices.
    check_vma=False,
  )(params, batch, fixed)


def _sum_on_devices(gradient, params, batch, fixed, *, accumulation, places):
  """Sums gradients over the microbatches of a device, then over the devices.

  For use in a `jax.shard_map`. The gradient of a split parameter is a part from
  the start: the parameter's box reduces it over the devices that split it.

  Args:
    gradient: (params, microbatch, fixed) -> (gradient, sums).
    params: the parts of this device.
    batch: the examples of this device.
    fixed: the parts of this device of parameters without a gradient.
    accumulation: number of microbatches.
    places: tree of NamedSharding of the whole parameters.

  Returns:
    (the parts of the gradient, sums over all examples).
  """

  def add(total, microbatch):
    # The barrier keeps the gathering of parameters inside the loop, where the
    # compiler would otherwise take it out, and hold all of them at once.
    given = jax.lax.optimization_barrier((params, microbatch, fixed))
    return jax.tree.map(jnp.add, total, gradient(*given)), None

  if accumulation == 1:
    grads, sums = gradient(params, batch, fixed)
  else:
    parts = jax.tree.map(
      lambda x: x.reshape(accumulation, -1, *x.shape[1:]), batch
    )
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype),
      jax.eval_shape(gradient, params, first, fixed),
    )
    (grads, sums), _ = jax.lax.scan(add, zeros, parts)

  def finish(grad, place):
    done = {n for _, names in parameter_gather.batch_axes(place) for n in names}
    left = [name for name in device_mesh.BATCH_AXES if name not in done]
    return jax.lax.psum(grad, tuple(left)) if left else grad

  grads = jax.tree.map(finish, grads, places)
  return grads, jax.lax.psum(sums, device_mesh.BATCH_AXES)


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
