"""Collects what a machine with a GPU and without a network needs for the jobs.

  python benchmarks/gpu/prepare.py --out=FOLDER --jobs=1,4 --data=ARCHIVES

FOLDER gets the wheels of the packages that the machine lacks, at the versions
of constraints.txt, the archives that the jobs read, the weights of an earlier
job (--weights), and manifest.json with sizes and SHA-256. Nothing that is there
and whole is fetched again. FOLDER and the files of this working tree travel
together; above --limit_mib the script refuses and names the largest files. A
sparse checkout of cdm, configs and benchmarks leaves the tests at home. What is
still too much can be prepared into two folders, of which the job is given both.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import prepared_files  # noqa: E402

# What an image with JAX for CUDA, Flax, Optax, Orbax, Pillow, SciPy,
# scikit-image and TensorBoard lacks; seen in November 2026.
MISSING = (
  'ml-collections clu grain array-record dm-tree immutabledict '
  'importlib-resources portpicker'
)
# pip takes a wheel of exactly these platforms.
PLATFORMS = [
  *(f'manylinux_2_{n}_x86_64' for n in (28, 27, 24, 17, 12, 5)),
  *('manylinux2014_x86_64', 'manylinux2010_x86_64', 'manylinux1_x86_64'),
]
NETWORK = ('metric_nets.zip', 'cifar10_resnet56')  # with its statistics
# {job: archives}. (name, part) takes the members whose name holds the part.
CIFAR = ('cifar10_train_a.zip', 'cifar10_test.zip', NETWORK)
FACES = ('faces128.zip', NETWORK)
DATA = {
  '1': (),
  '2': (),
  '3': (),
  '4': FACES,
  '7': CIFAR,
  '8': FACES,
}
IMAGENETTE = ('imagenette_128_train.zip', 'imagenette_128_val_2000.zip')
MIB = 2**20
NAMED = 6  # largest files in the refusal


def main(argv=None):
  """Fills the folder, writes its manifest and prints the commands."""
  args = parse(argv)
  archives = needed(args)
  args.out.mkdir(parents=True, exist_ok=True)
  kept = set()
  for archive in archives:
    kept.add(copy_archive(archive, args))
  if args.weights is not None:
    kept |= copy_weights(args.weights, args.out / 'weights')
  kept |= fetch_wheels(args)
  for name in prepared_files.FOLDERS:
    for path in (args.out / name).rglob('*'):
      if path.is_file() and path not in kept:
        path.unlink()  # of an earlier call with other jobs
  files = prepared_files.describe(args.out)
  refuse_above(args.limit_mib, args.out, files)
  commands = [
    f'python benchmarks/gpu/run.py {job} OUT --prepared={args.out}'
    for job in args.jobs
  ]
  manifest = {
    'jobs': args.jobs,
    'commit': commit(),
    'python': args.python,
    'bytes': sum(f['bytes'] for f in files),
    'commands': commands,
    'files': files,
  }
  text = json.dumps(manifest, indent=2) + '\n'
  (args.out / prepared_files.MANIFEST).write_text(text, encoding='utf-8')
  print(f'{args.out}: {len(files)} files, {manifest["bytes"] / MIB:.1f} MiB')
  print('\n'.join(commands))


def parse(argv):
  """Returns the arguments, with `jobs` as a list of known numbers."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--jobs', required=True, help='numbers, such as 1,4')
  parser.add_argument('--data', type=pathlib.Path, help='folder of archives')
  parser.add_argument(
    '--images', choices=('cifar10', 'imagenette'), default='cifar10',
    help='of job 7',
  )  # fmt: skip
  parser.add_argument(
    '--train_images', type=int, default=0,
    help='take so many training images of each archive of pictures, evenly '
    'spread; 0 takes all',
  )  # fmt: skip
  parser.add_argument(
    '--weights', type=pathlib.Path, help='folder of weights of an earlier job'
  )
  parser.add_argument(
    '--missing', default=MISSING, help="packages; '' carries no wheel"
  )
  parser.add_argument('--python', default='3.12', help='of the machine')
  parser.add_argument('--limit_mib', type=float, default=64.0)
  args = parser.parse_args(argv)
  args.jobs = [job.strip() for job in args.jobs.split(',')]
  for job in args.jobs:
    if job not in DATA:
      raise SystemExit(f'--jobs names {job!r}; the jobs are {", ".join(DATA)}.')
  args.out = args.out.resolve()
  return args


def needed(args):
  """Returns the archives that the jobs read, each once."""
  found = []
  for job in args.jobs:
    names = DATA[job]
    if job == '7' and args.images == 'imagenette':
      names = (*IMAGENETTE, NETWORK)
    found += [name for name in names if name not in found]
  if found and args.data is None:
    raise SystemExit(
      f'The jobs {", ".join(args.jobs)} read archives; give their folder with '
      '--data.'
    )
  return found


def copy_archive(archive, args):
  """Copies an archive, or the members of it that are wanted; -> its path."""
  name, part = archive if isinstance(archive, tuple) else (archive, '')
  source, target = args.data / name, args.out / 'data' / name
  if not source.is_file():
    raise SystemExit(f'{source} does not exist; see --data.')
  with zipfile.ZipFile(source) as pack:
    members = [n for n in pack.namelist() if part in n and n[-1] != '/']
    members = thinned(members, args.train_images)
    # Members, and not archives, are compared: a copy may have fewer of them.
    wanted = {n: pack.getinfo(n).CRC for n in members}
    if _members(target) != wanted:
      target.parent.mkdir(parents=True, exist_ok=True)
      with zipfile.ZipFile(target, 'w', zipfile.ZIP_STORED) as out:
        for member in members:
          # One date, so that the same members make the same bytes.
          out.writestr(zipfile.ZipInfo(member), pack.read(member))
  return target


def thinned(members, count):
  """Returns the names without some of the training pictures.

  Args:
    members: names; those of training pictures have a folder called train.
    count: how many of them stay, evenly spread; 0 keeps all.
  """
  train = [n for n in members if '/train/' in n]
  if not count or len(train) <= count:
    return members
  kept = {train[i * len(train) // count] for i in range(count)}
  return [n for n in members if '/train/' not in n or n in kept]


def _members(path):
  """Returns {name: CRC} of an archive, or None if there is no whole one."""
  try:
    with zipfile.ZipFile(path) as pack:
      return {i.filename: i.CRC for i in pack.infolist()}
  except (OSError, zipfile.BadZipFile):
    return None


def copy_weights(source, target):
  """Copies the files of an earlier job's weights; -> their paths."""
  files = sorted(source.glob('weights*'))
  if not any(path.name == 'weights.json' for path in files):
    raise SystemExit(f'{source} has no weights.json; see --weights.')
  target.mkdir(parents=True, exist_ok=True)
  return {pathlib.Path(shutil.copy2(path, target)) for path in files}


def fetch_wheels(args):
  """Downloads the wheels that are not there; -> the paths of all of them."""
  folder, kept, absent = args.out / 'wheels', set(), []
  pins = pinned(ROOT / 'constraints.txt')
  for package in args.missing.split():
    name = _normal(package)
    if name not in pins:
      raise SystemExit(
        f'constraints.txt has no version of {package}, which --missing names.'
      )
    found = wheel_of(folder, name, pins[name])
    if found is None:
      absent.append(f'{name}=={pins[name]}')
    else:
      kept.add(found)
  if absent:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(pip_command(args.python, folder, absent), check=True)
    kept |= {wheel_of(folder, *word.split('==')) for word in absent}
  return kept


def pip_command(python, folder, requirements):
  """Returns the words that download wheels for another machine's Python."""
  tag = python.replace('.', '')
  words = [sys.executable, '-m', 'pip', 'download', '--no-deps', '-q']
  words += ['--only-binary=:all:', '--implementation=cp']
  words += [f'--python-version={python}', f'--abi=cp{tag}', '--abi=abi3']
  words += ['--abi=none', *(f'--platform={name}' for name in PLATFORMS)]
  return [*words, '--platform=any', f'--dest={folder}', *requirements]


def pinned(constraints):
  """Returns {normal name: version} of a constraints file."""
  text = constraints.read_text(encoding='utf-8')
  found = re.findall(r'^([\w.-]+)==(\S+)', text, re.MULTILINE)
  return {_normal(name): version for name, version in found}


def wheel_of(folder, name, version):
  """Returns the wheel of a version in a folder, or None."""
  for path in sorted(folder.glob('*.whl')):
    words = path.name.split('-')
    if _normal(words[0]) == name and words[1] == version:
      return path
  return None


def _normal(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def refuse_above(limit_mib, out, files):
  """Ends the script if what travels is larger than the limit."""
  listed = repository_files(out)
  sizes = [(f['bytes'], str(out / f['path'])) for f in files]
  sizes += [(path.stat().st_size, str(path)) for path in listed]
  total = sum(size for size, _ in sizes)
  if total <= limit_mib * MIB:
    return
  largest = '\n'.join(
    f'  {size / MIB:6.1f} MiB  {name}'
    for size, name in sorted(sizes, reverse=True)[:NAMED]
  )
  raise SystemExit(
    f'{total / MIB:.1f} MiB would travel, the working tree and {out}; the '
    f'limit is {limit_mib:g} MiB. The largest files are\n{largest}\nLeave the '
    'tests at home (git sparse-checkout set cdm configs benchmarks), take '
    'fewer images with --train_images, or prepare fewer jobs.'
  )


def repository_files(out):
  """Returns the files of the working tree that git knows or does not ignore."""
  words = ['git', 'ls-files', '-z', '--cached', '--others']
  done = subprocess.run(
    [*words, '--exclude-standard'], cwd=ROOT, capture_output=True, check=True
  )
  names = done.stdout.decode('utf-8').split('\0')
  paths = {ROOT / name for name in names if name}
  return [p for p in paths if p.is_file() and not p.is_relative_to(out)]


def commit():
  """Returns the commit of the working tree, with a + if files differ."""
  from cdm.distributed import source_commit

  return source_commit.commit()


if __name__ == '__main__':
  main()
