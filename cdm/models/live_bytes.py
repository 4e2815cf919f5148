"""Counts the bytes of arrays that a traced program keeps at the same time.

The count needs no device and compiles nothing. It is an upper bound for most
programs, because the compiler fuses operations and does not store every array
between them; workspaces of its convolutions are not counted.
"""

import math
from typing import Any

from jax.extend.core import Literal

from cdm.models.flops import inner_programs


def count(program: Any) -> int:
  """Returns the most bytes of results that a program holds at one time.

  The arguments of the program are not counted, its results are. An array is
  held from the operation that makes it to the last one that uses it.

  Args:
    program: the jaxpr that `jax.make_jaxpr(f)(...)` returns.
  """
  jaxpr = getattr(program, 'jaxpr', program)
  uses = [eqn.invars for eqn in jaxpr.eqns] + [jaxpr.outvars]
  last_use = {
    var: i
    for i, used in enumerate(uses)
    for var in used
    if not isinstance(var, Literal)
  }
  ending = {}  # {number of an operation: bytes that end with it}
  held, most = 0, 0
  for i, eqn in enumerate(jaxpr.eqns):
    inner = max(map(count, inner_programs(eqn)), default=0)
    most = max(most, held + max(inner, sum(map(_bytes, eqn.outvars))))
    for var in eqn.outvars:
      held += _bytes(var)
      last = last_use.get(var, i)  # What nobody uses ends at once.
      ending[last] = ending.get(last, 0) + _bytes(var)
    held -= ending.pop(i, 0)
  return most


def _bytes(var: Any) -> int:
  return math.prod(var.aval.shape) * var.aval.dtype.itemsize
