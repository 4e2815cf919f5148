"""Writes the weights of a run into small files, and makes a run of them again.

The EMA parameters of a checkpoint, in float16 or bfloat16 and in the order of
their names, are one string of bytes, which is cut into parts of at most 15 MB.
weights.json names the arrays, the parts with their SHA-256, and holds the
config and the names of the classes. `restore` writes a work directory that
`config.train.init_from` and every command that draws images can name.

  python benchmarks/gpu/weight_parts.py --write=WORKDIR --parts=FOLDER
  python benchmarks/gpu/weight_parts.py --restore=WORKDIR --parts=FOLDER
"""

import argparse
import hashlib
import json
import math
import pathlib
import sys

import ml_dtypes
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

INDEX = 'weights.json'
PART_BYTES = 15_000_000
# float16 keeps 11 bits of a number and bfloat16 8, but float16 ends at 65504.
DTYPES = {'float16': np.float16, 'bfloat16': ml_dtypes.bfloat16}
FORMAT = 1


def write(workdir, out, *, dtype='float16', earlier_steps=0):
  """Writes the newest checkpoint's EMA parameters as parts.

  Args:
    workdir: work directory of a run.
    out: folder for weights.json and weights_NNN.bin.
    dtype: one of `DTYPES`.
    earlier_steps: steps of the runs that this one began from.

  Returns:
    What weights.json holds.

  Raises:
    ValueError: a weight is too large for the dtype, or is not finite.
  """
  import jax

  from cdm.checkpointing import reader, verification
  from cdm.data import class_names
  from cdm.data.files import atomic_files

  step = reader.resolve(workdir)
  path = reader.folder(workdir) / str(step)
  verification.verify(path)
  prefix = 'ema_params/'
  shapes = {
    name: shape
    for name, shape in reader.shapes_on_disk(path).items()
    if name.startswith(prefix)
  }
  wanted = {
    name: jax.ShapeDtypeStruct(shape, np.float32)
    for name, shape in shapes.items()
  }
  arrays = reader.restore_arrays(workdir, wanted, step=step)
  pieces, entries = [], []
  for name in sorted(arrays):
    with np.errstate(over='ignore'):  # looked for below
      stored = np.asarray(arrays[name]).astype(DTYPES[dtype])
    if not np.isfinite(stored.astype(np.float32)).all():
      raise ValueError(
        f'{name} of {workdir} has a number that {dtype} cannot hold; give '
        'another dtype, or look whether the run diverged.'
      )
    pieces.append(stored.tobytes())
    entries.append([name.removeprefix(prefix), list(stored.shape)])
  content, parts = b''.join(pieces), []
  out = pathlib.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  for n, start in enumerate(range(0, len(content), PART_BYTES)):
    piece = content[start : start + PART_BYTES]
    name = f'weights_{n:03d}.bin'
    with atomic_files.write_atomically(out / name) as partial:
      pathlib.Path(partial).write_bytes(piece)
    digest = hashlib.sha256(piece).hexdigest()
    parts.append({'name': name, 'bytes': len(piece), 'sha256': digest})
  index = {
    'format': FORMAT,
    'dtype': dtype,
    'step': step,
    'total_steps': earlier_steps + step,
    'config': json.loads(reader.read_config(workdir, step=step)),
    'classes': class_names.read(workdir),
    'arrays': entries,
    'parts': parts,
  }
  atomic_files.write_text_atomically(out / INDEX, json.dumps(index))
  return index


def read(folder):
  """Reads weights, and compares every part with its SHA-256.

  Args:
    folder: the folder that `write` filled.

  Returns:
    (what weights.json holds, {name: float32 array}).

  Raises:
    ValueError: a file is missing, damaged, or of another format; names it.
  """
  folder = pathlib.Path(folder)
  try:
    index = json.loads((folder / INDEX).read_text(encoding='utf-8'))
    version, dtype = index['format'], DTYPES[index['dtype']]
    entries = [(name, tuple(shape)) for name, shape in index['arrays']]
    parts = [(p['name'], p['bytes'], p['sha256']) for p in index['parts']]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{folder / INDEX} cannot be read ({error!r}); copy it again from the '
      'job that wrote it.'
    ) from error
  if version != FORMAT:
    raise ValueError(
      f'{folder / INDEX} has format {version}; this program reads {FORMAT}.'
    )
  content = b''.join(_part(folder / name, *rest) for name, *rest in parts)
  arrays, at = {}, 0
  size = sum(math.prod(shape) for _, shape in entries)
  if len(content) != size * np.dtype(dtype).itemsize:
    raise ValueError(
      f'{folder / INDEX} names arrays of {size} numbers, but its parts have '
      f'{len(content)} bytes; copy it again from the job that wrote it.'
    )
  for name, shape in entries:
    count = math.prod(shape)
    stored = np.frombuffer(content, dtype, count, at)
    arrays[name] = stored.astype(np.float32).reshape(shape)
    at += count * np.dtype(dtype).itemsize
  return index, arrays


def _part(path, size, digest):
  """Returns the bytes of a part, which must be those that were written."""
  try:
    content = path.read_bytes()
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error}.') from error
  if len(content) != size or hashlib.sha256(content).hexdigest() != digest:
    raise ValueError(
      f'{path} is damaged: it has {len(content)} bytes and not the {size} of '
      f'SHA-256 {digest[:12]}...; copy it again.'
    )
  return content


def restore(folder, workdir):
  """Writes a work directory whose only checkpoint holds weights.

  Args:
    folder: the folder that `write` filled.
    workdir: a new work directory.

  Returns:
    What weights.json holds.
  """
  import flax

  from cdm.config import loader
  from cdm.data import class_names
  from cdm.training import imported_weights

  index, arrays = read(folder)
  c = loader.from_json(json.dumps(index['config']), pathlib.Path(folder))
  params = flax.traverse_util.unflatten_dict(arrays, sep='/')
  workdir = pathlib.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  class_names.write(workdir, index['classes'])
  for line in imported_weights.write_workdir(c, workdir, params):
    print(line, flush=True)
  return index


def main(argv=None):
  """Writes or restores, as a command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  which = parser.add_mutually_exclusive_group(required=True)
  which.add_argument('--write', metavar='WORKDIR')
  which.add_argument('--restore', metavar='WORKDIR')
  parser.add_argument('--parts', required=True, metavar='FOLDER')
  parser.add_argument('--dtype', choices=DTYPES, default='float16')
  parser.add_argument('--earlier_steps', type=int, default=0)
  args = parser.parse_args(argv)
  try:
    if args.write:
      write(
        args.write,
        args.parts,
        dtype=args.dtype,
        earlier_steps=args.earlier_steps,
      )
    else:
      restore(args.parts, args.restore)
  except ValueError as error:
    raise SystemExit(str(error)) from error


if __name__ == '__main__':
  main()
