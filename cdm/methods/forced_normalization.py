"""Keeps the weights of a network normalised while it is trained, [EDM2].

A network whose layers divide their weights by their magnitude is not changed by
the magnitude of what is stored. But a gradient moves small weights further than
large ones, so the stored weights are normalised after every update too.
"""

from collections.abc import Callable
from typing import Any

from cdm.methods.diffusion_score import UNCERTAINTY


def projection(net: Any, objective: Any) -> Callable[[dict], dict] | None:
  """Returns what normalises parameters after an update, None for nothing.

  Args:
    net: the network; it has a method `project` if its weights are normalised.
    objective: a `diffusion_options.Objective`, whose learned weight may have
      such a method as well.

  Returns:
    `(params) -> params` of the parameters of a `Diffusion`.
  """
  of_net = getattr(net, 'project', None)
  of_weight = getattr(objective.uncertainty, 'project', None)
  if of_net is None and not getattr(
    objective.uncertainty, 'is_normalized', False
  ):
    return None

  def project(params):
    own = {name: params[name] for name in params if name == UNCERTAINTY}
    rest = {name: params[name] for name in params if name != UNCERTAINTY}
    if of_net is not None:
      rest = of_net(rest)
    if of_weight is not None:
      own = {name: of_weight(value) for name, value in own.items()}
    return {**rest, **own}

  return project
