"""Formats the results of `cdm plan` as text for a terminal."""

from collections.abc import Sequence

from cdm.distributed import device_specs
from cdm.planning import plan_types, roofline
from cdm.planning.roofline import Row
from cdm.reporting.text_table import columns, format_si

PARTS = {  # the parts of the memory, in the order in which they are listed
  'parameters': 'parameters',
  'moments': 'optimizer moments',
  'ema': 'EMA of the parameters',
  'teacher': 'parameters of the teacher',
  'batch': 'batch',
  'rest': 'step and key',
  'padding': 'padding of these to tiles',
  'outputs': 'outputs',
  'temporaries': 'temporaries',
  'program': 'program',
}


def head(row: Row) -> str:
  """Returns the lines about the program, which are the same for all slices."""
  program = f'{row["config"]}: {row["parameters"]:,} parameters, '
  if row['step'] == 'train':
    program += f'training step of {row["batch_size"]:,} images'
    if row['accumulation'] > 1:
      program += f' in {row["accumulation"]} microbatches'
  else:
    n = row['network_evaluations']
    program += f'sampling, {n:,} network evaluations'
  overrides = [f'  --config.{word}' for word in row['overrides']]
  return '\n'.join([program, *overrides])


def plan(row: Row) -> str:
  """Returns the text about one slice: verdict, memory, work, estimate."""
  piece = device_specs.parse(row['topology'])
  axes = ', '.join(f'{axis} {n}' for axis, n in row['mesh'].items() if n > 1)
  if row.get('fsdp_is_chosen') and row['mesh']['fsdp'] > 1:
    axes += ' (fsdp chosen: as many as a host has)'
  lines = [
    f'{row["topology"]}   {piece.title}',
    f'  mesh {axes or "of one device"}; {row["batch_per_device"]:g} images per '
    'part of the batch',
    f'  {verdict(row)}',
    '',
    '  memory per device',
    *_table(memory(row)),
    '',
    '  work',
    *_table(work(row)),
    '',
    *estimate(row),
  ]
  when = ' (compiled before)' if row['compiled_before'] else ''
  if piece.chip and not piece.is_tpu:
    lines += [
      '  compiled for CPUs in place of GPUs, whose compiler needs one: memory '
      'and',
      '  bytes are those of float32, and with bfloat16 less is needed',
    ]
  if row['quick']:
    lines += ['  compiled with least effort (--quick): memory is approximate']
  lines += [
    f'  compile time {duration(row["compile_seconds"])}{when}; '
    f'{row["compiler"]}'
  ]
  return '\n'.join(lines)


def verdict(row: plan_types.Facts) -> str:
  """Returns the line 'FITS: ...' or 'DOES NOT FIT: ...'."""
  peak, limit = row['peak_bytes_per_device'], row['device_bytes']
  if row['fits']:
    return (
      f'FITS: {size(peak)} of {size(limit)} per device ({peak / limit:.0%})'
    )
  return (
    f'DOES NOT FIT: the compiler needs {size(peak)} of {size(limit)} per '
    f'device, {size(row["missing_bytes"])} too much'
  )


def memory(row: Row) -> list[tuple[str, str, str]]:
  """Returns the table of the memory per device: rows (part, size, note)."""
  parts = row['memory']
  rows = [
    (label, size(parts[name]), '')
    for name, label in PARTS.items()
    if parts.get(name)
  ]
  peak = row['peak_bytes_per_device']
  # If the program does not fit, the compiler gives the sum of the parts only.
  if 'temporaries' not in parts:
    rows.append(('all else', size(peak - sum(parts.values())), 'temporaries'))
  rows.append(('peak', size(peak), ''))
  reserved = row['reserved_bytes']
  note = f'and {size(reserved)} that the runtime keeps' if reserved else ''
  if row['topology'].startswith(device_specs.CPU):
    note = "this machine's memory, shared out"
  rows.append(('of', size(row['device_bytes']), note))
  return rows


def work(row: Row) -> list[tuple[str, str, str]]:
  """Returns the table of the work: rows (quantity, amount, note)."""
  rows = [
    ('model FLOPs', format_si(row['model_flops_per_step'], 'FLOP'), 'network')
  ]
  if row['compiled_flops_per_step'] is None:
    return [*rows, ('compiled FLOPs', '-', _unknown(row))]
  moved, collectives = row['bytes_moved_per_device'], row['collectives']
  assert moved is not None and collectives is not None, 'the program fits'
  ratio = row['model_to_compiled_flops']
  rows += [
    (
      'compiled FLOPs',
      format_si(row['compiled_flops_per_step'], 'FLOP'),
      f'of all devices; model FLOPs are {ratio:.0%} of them' if ratio else '',
    ),
    ('bytes moved', size(moved), 'per device'),
  ]
  for kind, total in sorted(collectives.items()):
    rows.append(
      (kind, size(total['payload_bytes']), f'per device, in {total["count"]}')
    )
  repeated = row['compiler_rematerialized']
  if repeated:
    rows.append(('repeated', f'{repeated:,}', 'instructions, to save memory'))
  return rows


def _unknown(row: Row) -> str:
  """Returns why nothing is known of the work of a compiled program."""
  if not row['fits']:
    return 'it does not fit'
  return 'loops inside loops, of which the compiler counts one turn'


def estimate(row: Row) -> list[str]:
  """Returns the lines about time and cost, which are marked as an estimate."""
  estimated = row['estimate']
  if estimated is None:
    return [f'  no ESTIMATE of time and cost: {_unknown(row)}', '']
  on_cpu = row['topology'].startswith(device_specs.CPU)
  rows = [] if on_cpu else terms(row, estimated)
  what = 'step' if row['step'] == 'train' else 'batch'
  rows += [
    (
      what,
      duration(estimated['step_seconds']),
      f'bound by {estimated["bound_by"]}; '
      f'{count(estimated["images_per_second"])} images per second',
    ),
    (
      estimated['of'],
      duration(estimated['days'] * roofline.DAY),
      f'{count(estimated["chip_hours"])} chip-hours' + evaluations(estimated),
    ),
  ]
  if not on_cpu:
    rows.append(('cost', money(estimated['dollars']), price(estimated)))
  title = 'roofline of device peaks; nothing was run'
  if on_cpu:
    speed = format_si(row['cpu_flops'] or 0.0, 'FLOP')
    title = f'at the {speed} per second of a matrix product on this CPU'
  return [
    f'  ESTIMATE ({title}, expect longer)',
    *_table(rows),
    '',
  ]


def terms(row: Row, estimated: roofline.Estimate) -> list[tuple[str, str, str]]:
  """Returns the rows of the terms of the roofline: (term, time, note)."""
  rows = [
    (name, duration(seconds), f'{what} at their peak')
    for name, seconds, what in (
      ('compute', estimated['compute_seconds'], 'multipliers'),
      ('memory', estimated['memory_seconds'], 'bytes to and from HBM'),
      ('interconnect', estimated['interconnect_seconds'], 'links'),
    )
  ]
  piece = device_specs.parse(row['topology'])
  if piece.num_slices > 1:
    note, seconds = 'data center network between slices at its peak', '-'
    if piece.chip and piece.chip.network_bandwidth:
      seconds = duration(estimated['network_seconds'])
    else:
      note = f'no bandwidth of the network of {piece.kind} is known'
    rows.append(('network', seconds, note))
  return rows


def evaluations(estimated: roofline.Estimate) -> str:
  """Returns the share of evaluations in training: ', 1.2% of it evaluating'."""
  share = estimated['evaluation_fraction']
  return f', {100 * share:.2g}% of it evaluating' if share else ''


def price(estimated: roofline.Estimate) -> str:
  """Returns the price and its source, or why no price is known.

  For example 'at $1.20 per chip-hour, list price ...'.

  Args:
    estimated: what `roofline.estimate` returned.
  """
  if estimated['dollars'] is None:
    return estimated['price_source']
  dollars = estimated['price_per_chip_hour']
  return f'at ${dollars:,.2f} per chip-hour, {estimated["price_source"]}'


def comparison(rows: Sequence[Row]) -> str:
  """Returns a table with one line per slice."""
  table = [
    (
      'topology',
      'chips',
      'fits',
      'peak',
      'of',
      'est. step',
      'est. days',
      'est. chip-hours',
      'est. cost',
      'compiled in',
    )
  ]
  for row in rows:
    estimated = row['estimate']
    cells = ('-',) * 4
    if estimated:
      cells = (
        duration(estimated['step_seconds']),
        count(estimated['days']),
        count(estimated['chip_hours']),
        money(estimated['dollars']),
      )
    table.append(
      (
        row['topology'],
        f'{row["chips"]}',
        'yes' if row['fits'] else 'NO',
        size(row['peak_bytes_per_device']),
        size(row['device_bytes']),
        *cells,
        duration(row['compile_seconds']),
      )
    )
  return '\n'.join(columns(table))


def choice(row: Row | None, deadline_days: float) -> str:
  """Returns a sentence about the cheapest slice before the deadline.

  Args:
    row: what `search.cheapest` returned; None if there is no such slice.
    deadline_days: the deadline, in days.
  """
  if row is None:
    return (
      f'ESTIMATE: none of these fits and is done in {deadline_days:g} days (or '
      'no price is known).'
    )
  estimated = row['estimate']
  assert estimated is not None, 'the cheapest slice has a price'
  return (
    f'ESTIMATE: the cheapest within {deadline_days:g} days is '
    f'{row["topology"]}: {count(estimated["days"])} days, '
    f'{money(estimated["dollars"])}.'
  )


def size(number: float) -> str:
  """Formats a number of bytes: '1.50 GiB', '461 MiB', '12 B'."""
  for unit, least in (('GiB', 2**30), ('MiB', 2**20), ('KiB', 2**10)):
    if abs(number) >= least:
      value = number / least
      return f'{value:,.2f} {unit}' if value < 100 else f'{value:,.0f} {unit}'
  return f'{number:.0f} B'


def money(dollars: float | None) -> str:
  """Formats dollars: '$12,300', '$0.42', or '-' for None."""
  if dollars is None:
    return '-'
  return f'${dollars:,.2f}' if dollars < 100 else f'${count(dollars)}'


def count(number: float) -> str:
  """Formats a number to three digits: '59,300', '1.25', '< 0.001'."""
  if number >= 1000:
    return f'{float(f"{number:.3g}"):,.0f}'
  return f'{number:.3g}' if number >= 1e-3 or not number else '< 0.001'


def duration(seconds: float) -> str:
  """Formats a time: '3.2 ms', '12 s', '5 min 46 s', '2 h 5 min', '9 days'."""
  if seconds >= 2 * roofline.DAY:
    return f'{count(seconds / roofline.DAY)} days'
  if seconds >= 3600:
    return f'{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min'
  if seconds >= 120:
    return f'{seconds // 60:.0f} min {seconds % 60:.0f} s'
  if seconds >= 1:
    return f'{seconds:.3g} s'
  for unit, least in (('ms', 1e-3), ('us', 1e-6)):
    if seconds >= least:
      return f'{seconds / least:.3g} {unit}'
  return '< 1 us' if seconds else '0 s'


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
  """Formats rows (name, number, note) as lines with right-aligned numbers."""
  width = max(len(number) for _, number, _ in rows)
  return [
    '    ' + line
    for line in columns(
      [(name, number.rjust(width), note) for name, number, note in rows]
    )
  ]
