"""Runs one job on a machine with a GPU, within a time limit.

  python benchmarks/gpu/run.py JOB OUT --prepared=FOLDER [--smoke] [-- OPTIONS]

JOB is a number: 1 truth, 2 step_speed, 3 sampling_speed, 4 faces, 7 classes,
8 peer_recipe. FOLDER is what benchmarks/gpu/prepare.py made, and may be given
more than once. Its files are compared with their SHA-256, its wheels are
installed into a folder of their own, which no other program sees, and the job
runs with the OPTIONS. OUT gets small files only: rows.jsonl, tables, images,
weights in parts, log.txt.

After --minutes the job is asked to end (SIGTERM), so that a training saves its
weights, and after --grace_seconds more everything that it started is killed. A
SIGTERM to this script does the same. It needs Python and nothing else.
"""

import argparse
import importlib.metadata
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import prepared_files  # noqa: E402

JOBS = {
  '1': 'truth',
  '2': 'step_speed',
  '3': 'sampling_speed',
  '4': 'faces',
  '7': 'classes',
  '8': 'peer_recipe',
}
# Jobs that hold the GPU in one process at a time may take its memory at once;
# the others have several processes on it.
ALONE = ('sampling_speed', 'faces', 'classes')


def main(argv=None):
  """Prepares, runs the job and ends with its exit code."""
  argv = sys.argv[1:] if argv is None else argv
  own, options = argv, []
  if '--' in argv:
    at = argv.index('--')
    own, options = argv[:at], argv[at + 1 :]
  args = parse(own)
  out = args.out.resolve()
  out.mkdir(parents=True, exist_ok=True)
  work = pathlib.Path(args.work or tempfile.mkdtemp(prefix='cdm_job_'))
  work.mkdir(parents=True, exist_ok=True)
  manifests = [prepared_files.read(folder) for folder in args.prepared]
  merged = merge(args.prepared, work / 'prepared')
  site = install(merged / 'wheels', work / 'site')
  script = ROOT / 'benchmarks' / 'gpu' / f'{JOBS[args.job]}.py'
  words = [sys.executable, str(script), f'--out={out}', f'--work={work}']
  words += [f'--prepared={merged}', *options]
  words += ['--smoke'] if args.smoke else []
  env = environment(JOBS[args.job], site, manifests)
  code = run(words, env, out / 'log.txt', args)
  if not args.work:
    shutil.rmtree(work, ignore_errors=True)
  return code


def parse(argv):
  """Returns the arguments."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('job', choices=JOBS, metavar='JOB')
  parser.add_argument('out', type=pathlib.Path, metavar='OUT')
  parser.add_argument(
    '--prepared', action='append', default=[], type=pathlib.Path
  )
  parser.add_argument('--work', help='folder for large files; default: temp')
  parser.add_argument('--minutes', type=float, default=9.0, help='time limit')
  parser.add_argument('--grace_seconds', type=float, default=45.0)
  parser.add_argument('--smoke', action='store_true', help='short, on a CPU')
  return parser.parse_args(argv)


def merge(folders, target):
  """Links the files of prepared folders into one; -> its path."""
  for folder in folders:
    for name in prepared_files.FOLDERS:
      for path in sorted((folder / name).glob('*')):
        link = target / name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
          link.symlink_to(path.resolve())
  target.mkdir(parents=True, exist_ok=True)
  return target


def install(wheels, site):
  """Installs the wheels of absent packages into a folder; -> it, or None."""
  files = [
    str(path.resolve())
    for path in sorted(wheels.glob('*.whl'))
    if not is_installed(path.name.split('-')[0])
  ]
  if not files:
    return None
  if not site.exists():
    words = [sys.executable, '-m', 'pip', 'install', '-q', '--no-index']
    words += ['--no-deps', '--no-compile', '--no-cache-dir']
    subprocess.run([*words, f'--target={site}', *files], check=True)
  return site


def is_installed(package):
  """Returns whether this Python has a package, of any version."""
  try:
    importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


def environment(job, site, manifests):
  """Returns the environment of a job; what the caller has set stays."""
  env = dict(os.environ)
  paths = [str(ROOT), *([str(site)] if site else [])]
  env['PYTHONPATH'] = os.pathsep.join(
    [*paths, *filter(None, [env.get('PYTHONPATH')])]
  )
  env.setdefault('PYTHONUNBUFFERED', '1')
  env.setdefault(
    'XLA_PYTHON_CLIENT_PREALLOCATE', 'true' if job in ALONE else 'false'
  )
  env.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.90')
  # A machine that keeps nothing has no use for compiled programs on disk.
  env.setdefault('JAX_ENABLE_COMPILATION_CACHE', 'false')
  if not (ROOT / '.git').exists() and manifests and manifests[0].get('commit'):
    env.setdefault('CDM_COMMIT', manifests[0]['commit'])
  return env


def run(words, env, log, args):
  """Runs the job, its output on the screen and in a file; -> its exit code."""
  began = time.monotonic()
  asked = []
  with open(log, 'ab') as file:
    # A session of its own, so that nothing the job started is left.
    job = subprocess.Popen(
      words,
      cwd=ROOT,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )

    def ask(*_):
      if not asked:
        asked.append(time.monotonic())
        job.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, ask)
    os.set_blocking(job.stdout.fileno(), False)
    while True:
      ended = job.poll() is not None
      text = job.stdout.read()
      if text:
        file.write(text)
        file.flush()
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
      if ended:
        break
      if time.monotonic() - began > 60 * args.minutes:
        ask()
      if asked and time.monotonic() - asked[0] > args.grace_seconds:
        break
      time.sleep(0.2)
    _kill_group(job)
  seconds = time.monotonic() - began
  code = job.wait()
  how = 'stopped at its time limit' if asked else f'ended with {code}'
  print(f'{words[1]} {how} after {seconds:.0f} s', flush=True)
  return code


def _kill_group(job):
  """Kills what is left of the session of a job."""
  try:
    os.killpg(job.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass


if __name__ == '__main__':
  sys.exit(main())
