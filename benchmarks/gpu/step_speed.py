"""Measures the training step of cdm beside PyTorch, model after model.

  python benchmarks/gpu/run.py 2 OUT --prepared=FOLDER [-- --models=NAME,...
      --remat=none,full --attention=plain,fused --minutes=8]

For every model: first `step_variants`, which finds the largest batch and times
each kind of remat and attention; then `train_step.py`, which times cdm and the
same network in PyTorch in turn, in bfloat16, with and without torch.compile. It
is given half of the largest batch, because both programs stay on the GPU;
without PyTorch it times cdm alone. OUT gets rows.jsonl, variants.md and
peers.jsonl.
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import result_rows  # noqa: E402

MODELS = ('adm64', 'cdm64to256', 'sr3_16to128', 'cpu22m')
SMOKE_MODELS = ('small',)
SMOKE_MINUTES = 600.0
PEER = ROOT / 'benchmarks' / 'train_step.py'
COLUMNS = (
  'model', 'remat', 'attention', 'batch', 'seconds', 'images_per_second',
  'tflops', 'mfu', 'peak_bytes', 'compile_seconds',
)  # fmt: skip


def main(argv=None):
  """Runs both scripts for every model, until the time is used up."""
  args = parse(argv)
  # A test measures everything, on a machine as slow as it may be.
  minutes = SMOKE_MINUTES if args.smoke else args.minutes
  end = time.monotonic() + 60 * minutes
  for name in args.models:
    left = (end - time.monotonic()) / 60
    if left <= 0:
      print(f'{name}: no time is left', flush=True)
      continue
    batch = variants(name, left / 2, args)
    if batch:
      peer(name, max(1, batch // 2), end, args)
  lines = (args.out / result_rows.FILE).read_text(encoding='utf-8')
  rows = [json.loads(line) for line in lines.splitlines()]
  shown = [row for row in rows if 'seconds' in row]
  result_rows.write_table(args.out, 'variants.md', shown, COLUMNS)


def parse(argv):
  """Returns the arguments, models as a list."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ('--out', '--work', '--prepared'):
    parser.add_argument(name, required=True, type=pathlib.Path)
  parser.add_argument('--models', default='', help='default: all')
  parser.add_argument('--remat', default='none,convolutions')
  parser.add_argument('--attention', default='', help='default: the config')
  parser.add_argument('--minutes', type=float, default=8.0)
  parser.add_argument('--smoke', action='store_true')
  args = parser.parse_args(argv)
  known = SMOKE_MODELS if args.smoke else MODELS
  args.models = [n for n in args.models.split(',') if n] or list(known)
  return args


def variants(name, minutes, args):
  """Times the variants of a model; -> its largest batch, None if none ran."""
  words = [sys.executable, ROOT / 'benchmarks' / 'gpu' / 'step_variants.py']
  words += [f'--model={name}', f'--out={args.out}', f'--minutes={minutes}']
  words += [f'--remat={args.remat}', f'--attention={args.attention}']
  words += ['--smoke', '--dtype=float32'] if args.smoke else []
  done = subprocess.run(
    words, cwd=ROOT, stdout=subprocess.PIPE, encoding='utf-8'
  )
  print(done.stdout, end='', flush=True)
  if done.returncode:
    raise SystemExit(f'step_variants.py ended with {done.returncode}.')
  return json.loads(done.stdout.strip().splitlines()[-1])['batch']


def peer(name, batch, end, args):
  """Times cdm and PyTorch in turn; a failure does not stop other models."""
  words = [sys.executable, PEER, f'--models={name}', f'--batch={batch}']
  words += ['--what=both', f'--out={args.out / "peers.jsonl"}']
  if args.smoke:
    words += ['--smoke', '--dtype=float32', '--torch_compile=no']
  else:
    words += ['--dtype=bfloat16', '--torch_compile=both']
  if importlib.util.find_spec('torch') is None:
    words += ['--frameworks=cdm']
  print('$', *words[1:], flush=True)
  try:
    code = subprocess.run(
      words, cwd=ROOT, timeout=max(1.0, end - time.monotonic())
    ).returncode
  except subprocess.TimeoutExpired:
    code = 'its time limit'
  if code:
    print(f'{PEER.name} of {name} ended with {code}', flush=True)
    if args.smoke:
      raise SystemExit(1)


if __name__ == '__main__':
  main()
