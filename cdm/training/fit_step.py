"""Builds the jitted step of a method that is fitted without gradients.

  params, scalars = accumulate(params, batch)

There is no optimizer, and the average of the parameters is the parameters. The
state is that of any other run, so it is saved, restored and split likewise.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import optax

from cdm.distributed import compiler_options, device_mesh
from cdm.training import ema
from cdm.training.state import TrainState

if TYPE_CHECKING:
  from cdm.training.run_config import Run


def make_fit_step(
  accumulate: Callable[..., tuple[Any, dict[str, jax.Array]]],
  *,
  mesh: jax.sharding.Mesh,
  shardings: Any,
) -> Callable:
  """Builds the step, in the place of `step.make_step`.

  Args:
    accumulate: see `Method.accumulate`.
    mesh: the device mesh; the batch is split over `data` and `fsdp`.
    shardings: TrainState of shardings.

  Returns:
    Jitted (state, batch) -> (state, scalars); `state` is donated.
  """

  def fit(state: TrainState, batch: Mapping[str, jax.Array]):
    params, scalars = accumulate(state.params, batch)
    after = state.replace(
      step=state.step + 1, params=params, ema_params=ema.start(params)
    )
    return after, {**scalars, 'param_norm': optax.tree.norm(params)}

  return jax.jit(
    fit,
    in_shardings=(shardings, device_mesh.batch_sharding(mesh)),
    out_shardings=(shardings, device_mesh.replicated(mesh)),
    donate_argnums=0,
    compiler_options=compiler_options.for_devices(mesh.devices.flat),
  )


def check(schedule: 'Run') -> None:
  """Raises ValueError if the section `train` asks for what only gradients have.

  Args:
    schedule: the section `train`.
  """
  for key, off in (
    ('accumulation', 1),
    ('grad_norm_spike_factor', 0.0),
    ('init_from', ''),
  ):
    value = getattr(schedule, key)
    if value != off:
      raise ValueError(
        f'config.train.{key} is {value!r}, but this method is fitted without '
        f'gradients. Use --config.train.{key}={off!r}.'
      )
