"""Compiles a program for a slice and says what came of it.

What the compiler found is kept by the text of the program, so that planning the
same thing again takes the seconds of tracing, not the minutes of compiling.
"""

import hashlib
import json
import os
import pathlib
import re
import sys
import time
from importlib import metadata

import jax

from cdm.config import loader
from cdm.distributed import device_specs
from cdm.planning import hlo, lowering
from cdm.reporting import atomic_files

FORMAT = 1  # of what is kept; another number forgets it all
UNITS = {'': 1, 'B': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_NUMBER = r'([\d.]+)([BKMGT]?)'
# How XLA:TPU says that a program does not fit: (needed, available).
_SHORT = (
  rf'\bUsed {_NUMBER} of {_NUMBER} hbm',
  rf'memory required for [^(]*\({_NUMBER}\)'
  rf' exceeds available HBM \({_NUMBER}\)',
)


def measure(request):
  """Plans one program for one slice.

  Args:
    request: dict of 'config' (path), 'overrides' ([[dotted key, text], ...]),
      'topology', 'step' ('train' or 'sample'), 'batch_size' (of 'sample'),
      'quick' (compile with least effort), 'keep' (folder of what was compiled
      before, or None) and 'fresh' (compile again what is kept).

  Returns:
    JSON-able dict of facts; no estimate, no money. See `roofline.row`.

  Raises:
    ValueError: what is asked for cannot be planned.
  """
  piece = device_specs.parse(request['topology'])
  loaded = loader.load(request['config'], request['overrides'])
  found = describe_devices(piece)
  if request['step'] == 'train':
    planned = lowering.train_step(loaded, found)
  else:
    planned = lowering.sample_step(
      loaded, found, batch_size=request['batch_size']
    )
  facts = compiled(
    planned,
    piece,
    request['keep'],
    quick=request['quick'],
    fresh=request['fresh'],
  )
  usable, total = memory_of(piece)
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
    'batch_size': planned.batch_size,
    'batch_per_device': planned.batch_size / (shards['data'] * shards['fsdp']),
    'accumulation': planned.turns if request['step'] == 'train' else 1,
    'parameters': planned.parameters,
    'num_steps': planned.num_steps,
    'network_evaluations': planned.network_evaluations,
    # A TPU's compiler knows; a CPU's takes whatever it is given.
    'fits': facts['compiled'] and bool(piece.chip or peak <= usable),
    'peak_bytes_per_device': peak,
    'device_bytes': usable,
    'reserved_bytes': total - usable,
    'missing_bytes': max(0, peak - usable),
    'memory': memory_parts(planned.arguments, facts['memory']),
    'model_flops_per_step': planned.model_flops,
    **work(planned, facts, piece.devices),
    'compiler_message': facts['message'],
    'compiler': facts['compiler'],
    'quick': request['quick'],
    'compile_seconds': facts['seconds'],
    'compiled_before': facts['kept'],
  }


def describe_devices(piece):
  """-> JAX's devices of a `device_specs.Slice`; nothing is started but the CPU.

  Raises:
    ValueError: there is no such slice, or no compiler for it.
  """
  if piece.kind == device_specs.CPU:
    there = jax.devices('cpu')
    if len(there) < piece.devices:
      raise ValueError(
        f'--topology={piece.topology}: this process has {len(there)} CPU '
        'devices, and their number is settled when JAX starts.'
      )
    return there[: piece.devices]
  from jax.experimental import topologies

  options = dict(piece.chip.options)
  if piece.chips < 4:  # libtpu's own hosts have 2 x 2 chips
    bounds = (*piece.shape, 1, 1)[:3]
    options['chips_per_host_bounds'] = bounds
  try:
    found = topologies.get_topology_desc(
      platform='tpu', topology_name=piece.topology, **options
    )
  except Exception as error:  # noqa: BLE001 (libtpu raises its own kinds)
    reason = str(error).splitlines()[0].rstrip('.')
    raise ValueError(
      f'--topology={piece.topology}: the TPU compiler describes no such slice '
      f'({reason}). Axes are multiples of 2, and {piece.kind} has slices such '
      f'as those in its documentation; for example {device_specs.EXAMPLES}.'
    ) from error
  return found.devices


def peak_of(facts, piece, usable):
  """-> bytes that one device needs, from what `compiled` returned.

  The parts add up to a little more than is needed at once. What a TPU's
  compiler has placed fits.
  """
  needed = facts['needed_bytes']
  return min(needed, usable) if piece.chip and facts['compiled'] else needed


def memory_of(piece):
  """-> (bytes that a program may fill, bytes there are) on one device."""
  if piece.chip:
    return piece.chip.usable_bytes, piece.chip.hbm_bytes // piece.chip.cores
  host = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return host // piece.devices, host // piece.devices


def compiled(planned, piece, keep, *, quick=False, fresh=False):
  """-> dict of what the compiler says of a program, from `keep` if there.

  'compiled' (False if it does not fit), 'message' (why not), 'seconds',
  'needed_bytes', 'memory', 'flops' and 'bytes_accessed' (of one device, a loop
  counted once), 'collectives', 'loops', 'rematerialized', 'compiler', 'kept'.
  """
  compiler = versions(piece)
  text = planned.lowered.as_text()
  given = {name: os.environ.get(name, '') for name in FLAGS}
  words = json.dumps([FORMAT, compiler, piece.topology, quick, given])
  name = hashlib.sha256((words + text).encode()).hexdigest()[:32]
  path = pathlib.Path(keep) / f'{name}.json' if keep else None
  if path and path.exists() and not fresh:
    return {**json.loads(path.read_text()), 'kept': True}
  facts = compile_now(planned.lowered, piece.devices, quick=quick)
  facts['compiler'] = compiler
  if path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts)
    atomic_files.write_text_atomically(path, text, shared=True)
  return {**facts, 'kept': False}


FLAGS = (  # the compiler listens to them
  'XLA_FLAGS',
  'LIBTPU_INIT_ARGS',
  'JAX_OPTIMIZATION_LEVEL',
  'JAX_MEMORY_FITTING_LEVEL',
  'JAX_EXEC_TIME_OPTIMIZATION_EFFORT',
  'JAX_MEMORY_FITTING_EFFORT',
)
LEAST_EFFORT = {'exec_time_optimization_effort': -1.0}


def compile_now(lowered, num_devices, *, quick=False):
  """-> what `compiled` keeps; a program that does not fit is no error."""
  start = time.monotonic()
  try:
    made = lowered.compile(compiler_options=LEAST_EFFORT if quick else None)
  except jax.errors.JaxRuntimeError as error:
    seconds, message = time.monotonic() - start, str(error)
    short = out_of_memory(message)
    if short is None:
      raise
    return {
      'compiled': False,
      'message': message[:4000],
      'seconds': seconds,
      'needed_bytes': short[0],
      **dict.fromkeys(('memory', 'flops', 'bytes_accessed', 'collectives')),
      **dict.fromkeys(('loops', 'rematerialized')),
    }
  seconds = time.monotonic() - start
  stats, cost, text = made.memory_analysis(), made.cost_analysis(), ''
  text = made.as_text()
  memory = {
    'arguments': stats.argument_size_in_bytes,
    # What is donated is written in place.
    'outputs': stats.output_size_in_bytes - stats.alias_size_in_bytes,
    'donated': stats.alias_size_in_bytes,
    'temporaries': stats.temp_size_in_bytes,
    'program': stats.generated_code_size_in_bytes,
  }
  parts = ('arguments', 'outputs', 'temporaries', 'program')
  found = hlo.collectives(text, devices=num_devices)
  return {
    'compiled': True,
    'message': None,
    'seconds': seconds,
    'needed_bytes': sum(memory[part] for part in parts),
    'memory': memory,
    'flops': float(cost['flops']),
    'bytes_accessed': float(cost['bytes accessed']),
    'collectives': hlo.summary(found),
    'loops': hlo.loops(text),
    'rematerialized': hlo.rematerialized(text),
  }


def out_of_memory(message):
  """-> (bytes needed, bytes available) of a compiler's complaint, or None."""
  for pattern in _SHORT:
    match = re.search(pattern, message)
    if match:
      number, unit, limit, of = match.groups()
      return (
        round(float(number) * UNITS[unit]),
        round(float(limit) * UNITS[of]),
      )
  return None


def memory_parts(arguments, memory):
  """-> {part: bytes on one device}, adding up to the peak where it is known.

  Arguments are known by their shapes; the compiler rounds them up to whole
  tiles, which is 'padding'.
  """
  parts = dict(arguments)
  if memory is None:
    return parts
  parts['padding'] = memory['arguments'] - sum(arguments.values())
  for name in ('outputs', 'temporaries', 'program'):
    parts[name] = memory[name]
  return parts


def work(planned, facts, num_devices):
  """-> FLOPs, bytes and collectives of one run of the program.

  XLA counts a loop's body once. Nearly all the work is in one loop, if there
  is one (microbatches, sampling steps): its turns are multiplied in, and the
  update of the state, which is read and written once, is taken out of that.
  """
  names = ('bytes_moved_per_device', 'collectives', 'compiler_rematerialized')
  if not facts['compiled']:
    nothing = ('compiled_flops_per_step', 'model_to_compiled_flops')
    return dict.fromkeys((*nothing, *names))
  turns = planned.turns if planned.turns in facts['loops'] else 1
  flops = facts['flops'] * turns * num_devices
  once = 2 * facts['memory']['donated']
  moved = facts['bytes_accessed']
  moved = turns * max(moved - once, 0.0) + min(once, moved)
  values = (moved, facts['collectives'], facts['rematerialized'])
  return {
    'compiled_flops_per_step': flops,
    'model_to_compiled_flops': planned.model_flops / flops if flops else None,
    **dict(zip(names, values, strict=True)),
  }


def versions(piece):
  """-> e.g. 'jaxlib 0.10.2, libtpu 0.0.42.1'."""
  names = ['jaxlib'] if piece.kind == device_specs.CPU else ['jaxlib', 'libtpu']
  return ', '.join(f'{name} {metadata.version(name)}' for name in names)


def main():
  """Reads a request from stdin, writes {'facts'} or {'error'} to stdout."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # libraries print where they like
  request = json.load(sys.stdin)
  piece = device_specs.parse(request['topology'])
  if piece.kind == device_specs.CPU:
    jax.config.update('jax_num_cpu_devices', piece.devices)
  try:
    answer = {'facts': measure(request)}
  except ValueError as error:
    answer = {'error': str(error)}
  json.dump(answer, answers)
  answers.close()


if __name__ == '__main__':
  main()
