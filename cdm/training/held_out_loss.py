"""Computes the loss of held-out images, of the raw and the EMA parameters.

  loss = sum_i m_i loss(x_i; u_i, eps_i) / sum_i m_i

The images x_i, their noise levels u_i and their noise eps_i are the same in
every evaluation, so two numbers differ only as far as the parameters do. The
levels are stratified over a batch as in training. m_i is 0 for what fills the
last batch up, and for images that training would leave out too.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cdm.config import evaluated_images
from cdm.config.loader import ConfigDict
from cdm.distributed import compiler_options, device_mesh
from cdm.training import frozen_state, label_check, program, step
from cdm.training.eval_section import PREFIX

# Beginnings of the names of the scalars; the first are the raw parameters'.
RAW, EMA = PREFIX, f'{PREFIX}ema_'


def make_held_out_loss(
  c: ConfigDict, assembled: program.Program
) -> Callable[..., dict[str, float] | None]:
  """Reads the images and builds the evaluation, see `hooks.Evaluator.run`.

  Args:
    c: config of one stage.
    assembled: its program; the batches are split over its mesh.

  Returns:
    The function; it takes the frozen parameters of a method that has some as
    the keyword `frozen`. It returns 'held_out/loss', 'held_out/ema_loss', both
    by noise level, without the levels that no image has, and so every other
    scalar that the loss has of each example.

  Raises:
    ValueError: the evaluation data cannot be used.
  """
  # A microbatch is as much as the memory of the devices is sure to hold.
  size = assembled.schedule.batch_size
  part = size // assembled.schedule.accumulation
  batches = _read(c, assembled, size=size, part=part)
  sums = _make_sums(c, assembled, size=size, part=part)

  def values(*given):
    return jax.device_get(sums(*given))

  def run(params, ema_params, stop_asked, frozen=None):
    totals: dict[str, np.ndarray] = {}
    for number, batch in enumerate(batches):
      if stop_asked():
        return None
      place = np.asarray(divmod(number * part, size), np.int32)
      placed = device_mesh.shard_batch(batch, assembled.mesh)
      for prefix, tree in ((RAW, params), (EMA, ema_params)):
        for name, pair in values(tree, frozen, placed, place).items():
          total = totals.get(f'{prefix}{name}', np.zeros(2))
          totals[f'{prefix}{name}'] = total + np.asarray(pair, np.float64)
    return {
      name: float(total / count)
      for name, (total, count) in totals.items()
      if count
    }

  return run


def _read(c, assembled, *, size, part):
  """Reads this process's part of every microbatch, as host arrays."""
  most = assembled.evaluation.batches * size
  count, read = evaluated_images.open_up_to(c, most)
  rows = device_mesh.local_rows(assembled.mesh, part)
  starts = np.arange(0, count, part)
  numbers = (starts[:, None] + rows).ravel()
  image, label, there = read(numbers)
  label_check.check_range(
    label[there], assembled.built.net.num_classes, 'evaluation data'
  )
  arrays = {'image': image, 'label': label, 'there': there}
  arrays |= evaluated_images.open_inputs(c, most)(numbers)
  return [
    {name: x[k * len(rows) :][: len(rows)] for name, x in arrays.items()}
    for k in range(len(starts))
  ]


def _make_sums(c, assembled, *, size, part):
  """Returns jitted (params, frozen, microbatch, place) -> {name: step.Ratio}.

  `place` int32 [2] is the index of the batch and that of the microbatch's first
  example in it.
  """
  built, mesh = assembled.built, assembled.mesh
  draw = built.method.draw
  seed = program.seed_of(c, program.HELD_OUT_SEED)
  boxed = built.boxes(assembled.state.params)
  own = frozen_state.of(assembled.state)
  boxed_frozen = built.boxes(own['frozen']) if own else None

  def sums(params, frozen, batch, place):
    fixed = {'frozen': boxed_frozen(frozen)} if boxed_frozen else {}
    key = jax.random.fold_in(jax.random.key(seed), place[0])
    draw_key, key = jax.random.split(key)
    drawn = {'example': jnp.arange(size)}
    if draw is not None:
      drawn |= draw(draw_key, size)
    drawn = jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(x, place[1], part), drawn
    )
    there = batch['there']
    examples = {name: x for name, x in batch.items() if name != 'there'}
    losses, scalars = built.method.loss(
      boxed(params),
      {**examples, **device_mesh.split_batch(drawn, mesh)},
      key=key,
      train=False,
      **fixed,
    )
    count = there.sum(dtype=jnp.float32)
    found = {
      name: step.Ratio(jnp.where(there, value, 0.0).sum(), count)
      for name, value in {**scalars, 'loss': losses}.items()
      if name != 'logsnr' and value.shape == losses.shape
    }
    if 'logsnr' in scalars:
      found |= step.loss_by_level(losses, scalars['logsnr'], there)
    return found

  return jax.jit(
    device_mesh.in_mesh(sums, mesh),
    out_shardings=device_mesh.replicated(mesh),
    compiler_options=compiler_options.for_devices(mesh.devices.flat),
  )
