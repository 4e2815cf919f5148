"""Compiles a program for a slice, or reads the cached result; counts its work.

The compiler's results are cached on disk under a hash of the program's text, so
that planning the same program again takes the seconds of tracing, not the
minutes of compiling.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import sys
import threading
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax

from cdm.config import loader
from cdm.data import host_memory
from cdm.data.files import atomic_files, damaged_file, json_file
from cdm.distributed import device_specs
from cdm.planning import (
  cpu_speed,
  described_devices,
  hlo,
  lowering,
  plan_types,
)

FORMAT = 2  # version of the cached results; another number invalidates them
UNITS = {'': 1, 'B': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_NUMBER = r'([\d.]+)([BKMGT]?)'
# The messages of XLA:TPU about a program that does not fit. The groups hold
# (needed, available).
_SHORT = (
  rf'\bUsed {_NUMBER} of {_NUMBER} hbm',
  rf'memory required for [^(]*\({_NUMBER}\)'
  rf' exceeds available HBM \({_NUMBER}\)',
)


def measure(request: plan_types.Request) -> plan_types.Facts:
  """Compiles one program for one slice and measures it.

  Args:
    request: the program, the slice and how to compile.

  Returns:
    The facts, without estimates of time or cost; `roofline.row` adds those.

  Raises:
    ValueError: the config, the step or the topology cannot be planned.
  """
  piece = device_specs.parse(request['topology'])
  loaded = loader.load(request['config'], request['overrides'])
  devices = described_devices.of(piece)
  if request['step'] == 'train':
    planned = lowering.train_step(loaded, devices, num_slices=piece.num_slices)
  else:
    planned = lowering.sample_step(
      loaded,
      devices,
      batch_size=request['batch_size'],
      num_slices=piece.num_slices,
    )
  facts = compile_cached(
    planned,
    piece,
    request['keep'],
    quick=request['quick'],
    fresh=request['fresh'],
  )
  usable, total = device_memory(piece)
  peak = peak_of(facts, piece, usable)
  shards = planned.mesh.shape
  return {
    'config': str(request['config']),
    'overrides': [f'{key}={text}' for key, text in request['overrides']],
    'step': request['step'],
    'topology': piece.topology,
    'devices': piece.devices,
    'chips': piece.chips,
    'mesh': dict(shards),
    'fsdp_is_chosen': planned.fsdp_is_chosen,
    'batch_size': planned.batch_size,
    'batch_per_device': planned.batch_size / (shards['data'] * shards['fsdp']),
    'accumulation': planned.turns or 1 if request['step'] == 'train' else 1,
    'parameters': planned.parameters,
    'num_steps': planned.num_steps,
    'network_evaluations': planned.network_evaluations,
    'evaluation_steps': planned.evaluation_steps,
    # The TPU compiler refuses a program that does not fit. The CPU compiler
    # accepts any program, so its peak is compared with the memory here.
    'fits': facts['compiled'] and (piece.is_tpu or peak <= usable),
    'peak_bytes_per_device': peak,
    'device_bytes': usable,
    'reserved_bytes': total - usable,
    'missing_bytes': max(0, peak - usable),
    'memory': memory_parts(planned.arguments, facts['memory']),
    'model_flops_per_step': planned.model_flops,
    **count_work(planned, facts, piece.devices),
    'compiler_message': facts['message'],
    'compiler': facts['compiler'],
    'quick': request['quick'],
    'compile_seconds': facts['seconds'],
    'compiled_before': facts['kept'],
    'cpu_flops': None if piece.chip else cpu_speed.matrix_product_flops(),
  }


def peak_of(
  facts: plan_types.Refused | plan_types.Compiled,
  piece: device_specs.Slice,
  usable: int,
) -> int:
  """Returns the bytes that one device needs to run a program.

  The parts of the memory are not all needed at once, so their sum is a little
  too large. A program that the TPU compiler accepted fits whatever their sum
  is, so its peak is capped at `usable`.

  Args:
    facts: what `compile_cached` returned.
    piece: the slice.
    usable: bytes that a program may fill on one device.
  """
  needed = facts['needed_bytes']
  return min(needed, usable) if piece.is_tpu and facts['compiled'] else needed


def device_memory(piece: device_specs.Slice) -> tuple[int, int]:
  """Returns (usable, total) bytes of memory of one device.

  A program may fill the usable bytes; the runtime reserves the others.
  """
  if piece.chip:
    return piece.chip.usable_bytes, piece.chip.hbm_bytes // piece.chip.cores
  host = host_memory.total_bytes()
  if host is None:
    raise ValueError(
      f'--topology={piece.topology}: this system does not tell how much memory '
      'it has. Name a slice of TPUs or GPUs, or plan on Linux or macOS.'
    )
  return host // piece.devices, host // piece.devices


def compile_cached(
  planned: lowering.Planned,
  piece: device_specs.Slice,
  keep: str | os.PathLike | None,
  *,
  quick: bool = False,
  fresh: bool = False,
) -> plan_types.Refused | plan_types.Compiled:
  """Compiles a program, or reads the cached result of compiling it.

  Args:
    planned: the program.
    piece: the slice to compile it for.
    keep: the cache folder, or None for no cache.
    quick: compile with the least effort.
    fresh: compile again even if the result is cached.

  Returns:
    The result of compiling, with the keys 'compiler' and 'kept'.
  """
  compiler = versions(piece)
  text = planned.lowered.as_text()
  flags = {name: os.environ.get(name, '') for name in FLAGS}
  # A program for GPUs is compiled for as many CPU devices.
  target = piece.topology
  if not piece.is_tpu:
    target = device_specs.with_slices(f'cpu:{piece.devices}', piece.num_slices)
  settings = json.dumps([FORMAT, compiler, target, quick, flags])
  name = hashlib.sha256((settings + text).encode()).hexdigest()[:32]
  path = pathlib.Path(keep) / f'{name}.json' if keep else None
  if path and path.exists() and not fresh:
    kept = read_kept(path)
    if kept is not None:
      kept['kept'] = True
      return kept
  facts = compile_now(
    planned.lowered, piece.devices, quick=quick, num_slices=piece.num_slices
  )
  facts['compiler'] = compiler
  if path:
    # A cache that is full costs time at the next start, and nothing now.
    with contextlib.suppress(OSError):
      path.parent.mkdir(parents=True, exist_ok=True)
      text = json.dumps(facts)
      atomic_files.write_text_atomically(path, text)
  facts['kept'] = False
  return facts


def read_kept(
  path: pathlib.Path,
) -> plan_types.Refused | plan_types.Compiled | None:
  """Reads a cached result; None, after a warning, if it is damaged."""
  declared = plan_types.Refused | plan_types.Compiled
  try:
    return json_file.read(path, declared, remedy='It is compiled again.')
  except damaged_file.DamagedFile as error:
    print(f'cdm: {error}', file=sys.stderr)
    return None


# These environment variables change what the compiler does.
FLAGS = (
  'XLA_FLAGS',
  'LIBTPU_INIT_ARGS',
  'JAX_OPTIMIZATION_LEVEL',
  'JAX_MEMORY_FITTING_LEVEL',
  'JAX_EXEC_TIME_OPTIMIZATION_EFFORT',
  'JAX_MEMORY_FITTING_EFFORT',
)
# Options for the least effort, as JAX calls them from older to newer; 9 is the
# level O0. The first that the compiler knows is taken.
LEAST_EFFORT = (
  {'exec_time_optimization_effort': -1.0},
  {'optimization_level': 9},
)


def compile_now(
  lowered: Any, num_devices: int, *, quick: bool = False, num_slices: int = 1
) -> plan_types.Refused | plan_types.Compiled:
  """Compiles a program and returns the facts that `compile_cached` stores.

  A program that does not fit is a result, not an error: its 'compiled' is
  False and most other values are None.

  Args:
    lowered: a `jax.stages.Lowered`.
    num_devices: devices of the program.
    quick: compile with the least effort.
    num_slices: number of slices that the devices form.

  Raises:
    jax.errors.JaxRuntimeError: compiling failed for any other reason.
  """
  start = time.monotonic()
  try:
    executable = _compile(lowered, quick)
  except jax.errors.JaxRuntimeError as error:
    seconds, message = time.monotonic() - start, str(error)
    shortage = out_of_memory(message)
    if shortage is None:
      raise
    return {
      'compiled': False,
      'message': message[:4000],
      'seconds': seconds,
      'needed_bytes': shortage[0],
      'memory': None,
      'flops': None,
      'bytes_accessed': None,
      'collectives': None,
      'loops': None,
      'rematerialized': None,
    }
  seconds = time.monotonic() - start
  stats, cost = executable.memory_analysis(), executable.cost_analysis()
  text = executable.as_text()
  memory: plan_types.Memory = {
    'arguments': stats.argument_size_in_bytes,
    # Outputs that alias donated arguments are written in place and take no
    # memory of their own.
    'outputs': stats.output_size_in_bytes - stats.alias_size_in_bytes,
    'donated': stats.alias_size_in_bytes,
    'temporaries': stats.temp_size_in_bytes,
    'program': stats.generated_code_size_in_bytes,
  }
  parts = ('arguments', 'outputs', 'temporaries', 'program')
  collectives = hlo.collectives(
    text, devices=num_devices, num_slices=num_slices
  )
  return {
    'compiled': True,
    'message': None,
    'seconds': seconds,
    'needed_bytes': sum(memory[part] for part in parts),
    'memory': memory,
    'flops': float(cost['flops']),
    'bytes_accessed': float(cost['bytes accessed']),
    'collectives': hlo.summary(collectives),
    'loops': hlo.loops(text),
    'rematerialized': hlo.rematerialized(text),
  }


def _compile(lowered: Any, quick: bool) -> Any:
  for options in LEAST_EFFORT if quick else ():
    try:
      return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
      if 'No such compile option' not in str(error):
        raise
  return lowered.compile(compiler_options=None)


def out_of_memory(message: str) -> tuple[int, int] | None:
  """Parses the compiler's message about a program that does not fit.

  Returns:
    (bytes needed, bytes available) on one device, or None for a message about
    something else.
  """
  for pattern in _SHORT:
    match = re.search(pattern, message)
    if match:
      needed, unit, limit, limit_unit = match.groups()
      return (
        round(float(needed) * UNITS[unit]),
        round(float(limit) * UNITS[limit_unit]),
      )
  return None


def memory_parts(
  arguments: Mapping[str, int], memory: plan_types.Memory | None
) -> dict[str, int]:
  """Splits the memory that one device needs into named parts.

  The sizes of the arguments follow from their shapes. The compiler rounds them
  up to whole tiles; the difference is the part 'padding'.

  Args:
    arguments: {part of the arguments: bytes on one device}.
    memory: the compiler's 'memory', or None for a program that does not fit.

  Returns:
    {part: bytes on one device}. With `memory` the parts add up to all that the
    compiler allocates; without it there are only the parts of the arguments.
  """
  parts = dict(arguments)
  if memory is None:
    return parts
  parts['padding'] = memory['arguments'] - sum(arguments.values())
  for name in ('outputs', 'temporaries', 'program'):
    parts[name] = memory[name]
  return parts


def count_work(
  planned: lowering.Planned,
  facts: plan_types.Refused | plan_types.Compiled,
  num_devices: int,
) -> plan_types.Work:
  """Counts the FLOPs, bytes and collectives of one run of the program.

  XLA counts the body of a loop once. If the program has a loop (over
  microbatches or sampling steps), nearly all of the work is inside the loop, so
  XLA's counts are multiplied by its number of iterations. The update of the
  state is outside the loop, so the donated bytes, which are read and written
  once, are not multiplied. With loops inside that loop nothing is known.

  Args:
    planned: the program.
    facts: what `compile_cached` returned.
    num_devices: devices of the slice; the FLOPs are those of all devices.
  """
  if not facts['compiled'] or planned.turns is None:
    return {
      'compiled_flops_per_step': None,
      'model_to_compiled_flops': None,
      'bytes_moved_per_device': None,
      'collectives': None,
      'compiler_rematerialized': None,
    }
  turns = planned.turns if planned.turns in facts['loops'] else 1
  flops = facts['flops'] * turns * num_devices
  once = 2 * facts['memory']['donated']
  moved = facts['bytes_accessed']
  moved = turns * max(moved - once, 0.0) + min(once, moved)
  return {
    'compiled_flops_per_step': flops,
    'model_to_compiled_flops': planned.model_flops / flops if flops else None,
    'bytes_moved_per_device': moved,
    'collectives': facts['collectives'],
    'compiler_rematerialized': facts['rematerialized'],
  }


def versions(piece: device_specs.Slice) -> str:
  """Returns the compiler's versions, e.g. 'jaxlib 0.10.2, libtpu 0.0.42.1'."""
  names = ['jaxlib', 'libtpu'] if piece.is_tpu else ['jaxlib']
  return ', '.join(f'{name} {metadata.version(name)}' for name in names)


def main() -> None:
  """Reads a request, a line of JSON, from stdin and answers as JSON on stdout.

  The answer is {'facts': what `measure` returned} or {'error': message}. When
  stdin is closed before, whoever asked has ended, and so does this process.
  """
  output = os.fdopen(os.dup(1), 'w')
  # Libraries may print to stdout, which is reserved for the answer, so file
  # descriptor 1 becomes stderr.
  os.dup2(2, 1)
  request = json.loads(sys.stdin.readline())
  threading.Thread(target=_exit_at_end, args=(sys.stdin,), daemon=True).start()
  piece = device_specs.parse(request['topology'])
  if not piece.is_tpu:
    jax.config.update('jax_num_cpu_devices', piece.devices)
  try:
    answer = {'facts': measure(request)}
  except ValueError as error:
    answer = {'error': str(error)}
  json.dump(answer, output)
  output.close()


def _exit_at_end(stream):
  # Nobody would read the answer, and compiling takes minutes and gigabytes.
  stream.read()
  os._exit(1)


if __name__ == '__main__':
  main()
