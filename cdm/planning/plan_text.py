"""Writes plans for people."""

from cdm.distributed import device_specs
from cdm.planning import roofline
from cdm.reporting.text_table import columns, si

PARTS = {  # of memory, in this order
  'parameters': 'parameters',
  'moments': 'optimizer moments',
  'ema': 'EMA of the parameters',
  'batch': 'batch',
  'rest': 'step and key',
  'padding': 'padding of these to tiles',
  'outputs': 'outputs',
  'temporaries': 'temporaries',
  'program': 'program',
}


def head(row):
  """-> lines about what is planned, the same on every slice."""
  what = f'{row["config"]}: {row["parameters"]:,} parameters, '
  if row['step'] == 'train':
    what += f'training step of {row["batch_size"]:,} images'
    if row['accumulation'] > 1:
      what += f' in {row["accumulation"]} microbatches'
  else:
    n = row['network_evaluations']
    what += f'sampling, {n:,} network evaluations'
  given = [f'  --config.{word}' for word in row['overrides']]
  return '\n'.join([what, *given])


def plan(row):
  """-> text about one slice: verdict, memory, work, estimate."""
  piece = device_specs.parse(row['topology'])
  axes = ', '.join(f'{axis} {n}' for axis, n in row['mesh'].items() if n > 1)
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
  if row['quick']:
    lines += ['  compiled with least effort (--quick): memory is approximate']
  lines += [
    f'  compile time {duration(row["compile_seconds"])}{when}; '
    f'{row["compiler"]}'
  ]
  return '\n'.join(lines)


def verdict(row):
  """-> 'FITS: ...' or 'DOES NOT FIT: ...'."""
  peak, limit = row['peak_bytes_per_device'], row['device_bytes']
  if row['fits']:
    return (
      f'FITS: {size(peak)} of {size(limit)} per device ({peak / limit:.0%})'
    )
  return (
    f'DOES NOT FIT: the compiler needs {size(peak)} of {size(limit)} per '
    f'device, {size(row["missing_bytes"])} too much'
  )


def memory(row):
  """-> rows (part, size, note)."""
  parts = row['memory']
  rows = [
    (label, size(parts[name]), '')
    for name, label in PARTS.items()
    if parts.get(name)
  ]
  peak = row['peak_bytes_per_device']
  if 'temporaries' not in parts:  # not told apart where it does not fit
    rows.append(('all else', size(peak - sum(parts.values())), 'temporaries'))
  rows.append(('peak', size(peak), ''))
  reserved = row['reserved_bytes']
  note = f'and {size(reserved)} that the runtime keeps' if reserved else ''
  if row['topology'].startswith(device_specs.CPU):
    note = "this machine's memory, shared out"
  rows.append(('of', size(row['device_bytes']), note))
  return rows


def work(row):
  """-> rows (what, how much, note)."""
  rows = [('model FLOPs', si(row['model_flops_per_step'], 'FLOP'), 'network')]
  if row['compiled_flops_per_step'] is None:
    return [*rows, ('compiled FLOPs', '-', 'not compiled: it does not fit')]
  ratio = row['model_to_compiled_flops']
  rows += [
    (
      'compiled FLOPs',
      si(row['compiled_flops_per_step'], 'FLOP'),
      f'of all devices; model FLOPs are {ratio:.0%} of them' if ratio else '',
    ),
    ('bytes moved', size(row['bytes_moved_per_device']), 'per device'),
  ]
  for kind, found in sorted(row['collectives'].items()):
    rows.append(
      (kind, size(found['payload_bytes']), f'per device, in {found["count"]}')
    )
  again = row['compiler_rematerialized']
  if again:
    rows.append(('repeated', f'{again:,}', 'instructions, to save memory'))
  return rows


def estimate(row):
  """-> lines: time and money, marked as an estimate."""
  found = row['estimate']
  if found is None:
    why = 'it does not fit'
    if row['topology'].startswith(device_specs.CPU):
      why = 'the peaks of this CPU are not known'
    return [f'  no ESTIMATE of time and cost: {why}', '']
  rows = [
    (name, duration(found[f'{key}_seconds']), f'{what} at their peak')
    for name, key, what in (
      ('compute', 'compute', 'multipliers'),
      ('memory', 'memory', 'bytes to and from HBM'),
      ('interconnect', 'interconnect', 'links'),
    )
  ]
  what = 'step' if row['step'] == 'train' else 'batch'
  rows += [
    (
      what,
      duration(found['step_seconds']),
      f'bound by {found["bound_by"]}; {count(found["images_per_second"])} '
      'images per second',
    ),
    (
      found['of'],
      duration(found['days'] * roofline.DAY),
      f'{count(found["chip_hours"])} chip-hours',
    ),
    ('cost', money(found['dollars']), price(found)),
  ]
  return [
    '  ESTIMATE (roofline of device peaks; nothing was run, expect longer)',
    *_table(rows),
    '',
  ]


def price(found):
  """-> 'at $1.20 per chip-hour, list price ...', or why there is none."""
  if found['dollars'] is None:
    return found['price_source']
  each = found['price_per_chip_hour']
  return f'at ${each:,.2f} per chip-hour, {found["price_source"]}'


def comparison(rows):
  """-> a table, a line per slice."""
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
    found = row['estimate']
    cells = ('-',) * 4
    if found:
      cells = (
        duration(found['step_seconds']),
        count(found['days']),
        count(found['chip_hours']),
        money(found['dollars']),
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


def choice(row, deadline_days):
  """-> a sentence about the cheapest slice in time; row may be None."""
  if row is None:
    return (
      f'ESTIMATE: none of these fits and is done in {deadline_days:g} days (or '
      'no price is known).'
    )
  found = row['estimate']
  return (
    f'ESTIMATE: the cheapest within {deadline_days:g} days is '
    f'{row["topology"]}: {count(found["days"])} days, '
    f'{money(found["dollars"])}.'
  )


def size(number):
  """-> '1.50 GiB' and the like."""
  for unit, least in (('GiB', 2**30), ('MiB', 2**20), ('KiB', 2**10)):
    if abs(number) >= least:
      value = number / least
      return f'{value:,.2f} {unit}' if value < 100 else f'{value:,.0f} {unit}'
  return f'{number:.0f} B'


def money(dollars):
  """-> '$12,300', '$0.42', or '-' of None."""
  if dollars is None:
    return '-'
  return f'${dollars:,.2f}' if dollars < 100 else f'${count(dollars)}'


def count(number):
  """-> three digits and commas: '59,300', '1.25', '< 0.001'."""
  if number >= 1000:
    return f'{float(f"{number:.3g}"):,.0f}'
  return f'{number:.3g}' if number >= 1e-3 or not number else '< 0.001'


def duration(seconds):
  """-> '3.2 ms', '12 s', '5 min 46 s', '2 h 5 min', '12.5 days'."""
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


def _table(rows):
  """Rows of (name, number, note) -> lines, numbers on the right."""
  width = max(len(number) for _, number, _ in rows)
  return [
    '    ' + line
    for line in columns(
      [(name, number.rjust(width), note) for name, number, note in rows]
    )
  ]
