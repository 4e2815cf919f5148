"""cdm where a system lacks what Linux has: macOS, and Windows for readers.

A machine without it is imitated in a process of its own.
"""

import ast
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What macOS or Windows lacks, and the modules that do without it there.
LACKING = {
  'os.pread': {'cdm.data.npz_images', 'cdm.data.forms.byte_ranges'},
  'os.register_at_fork': {
    'cdm.data.forms.lmdb_images',
    'cdm.data.forms.parquet_rows',
  },
  'os.sysconf': {
    'cdm.cli.enlarging_worker.worker_program',  # behind /proc
    'cdm.data.host_memory',
    'cdm.reporting.process_age',  # behind /proc
    'cdm.training.utilization',  # behind /proc
  },
  'os.sched_getaffinity': {'cdm.data.preparation_cost'},
  'os.getuid': {'cdm.cli.private_folder', 'cdm.distributed.user_cache'},
  'select.poll': {'cdm.cli.main'},
  'fcntl.flock': {'cdm.data.prepare', 'cdm.models.pretrained.download'},
  'resource.getrusage': {'cdm.reporting.session_log'},
  'resource.getrlimit': {
    'cdm.cli.enlarging_worker.worker_program',  # behind /proc
    'cdm.data.build_tfds',
    'cdm.data.shard_records',
    'cdm.distributed.open_files',
  },
  'resource.setrlimit': {
    'cdm.cli.enlarging_worker.worker_program',  # behind /proc
    'cdm.data.build_tfds',
    'cdm.distributed.open_files',
  },
  'ctypes.CDLL': {'cdm.checkpointing.freed_memory'},  # suppressed
}
# Nothing of cdm needs these, so nobody asks whether they exist.
UNUSED = {
  'os': 'posix_fadvise sched_setaffinity sendfile splice '
  'memfd_create getxattr setxattr fork forkpty mkfifo mknod '
  'getpgid setsid killpg geteuid getgid chown lchown fdatasync '
  'posix_fallocate O_DIRECT O_NOFOLLOW O_NONBLOCK O_NOATIME '
  'getloadavg pwrite preadv copy_file_range eventfd pidfd_open'.split(),
  'signal': 'SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGPIPE SIGBUS SIGCHLD '
  'alarm setitimer pthread_sigmask sigwait'.split(),
  'select': ['epoll', 'kqueue'],
  'socket': 'AF_UNIX AF_NETLINK SO_REUSEPORT SO_PEERCRED'.split(),
}


def attributes(path):
  """-> {'os.pread', ...}: dotted names of a program, two words each."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  return {
    f'{node.value.id}.{node.attr}'
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
  }


def test_what_a_system_may_lack_is_used_where_it_may_be_missing():
  unused = {f'{name}.{one}' for name, them in UNUSED.items() for one in them}
  users = {name: set() for name in LACKING}
  for path in sorted((ROOT / 'cdm').rglob('*.py')):
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    found = attributes(path)
    assert not found & unused, f'{module} uses {found & unused}'
    for name in found & users.keys():
      users[name].add(module)
  assert users == LACKING


READ = """
import json, os, pathlib, select, signal, sys
system, folder = sys.argv[1], pathlib.Path(sys.argv[2])
import grain, jax, numpy as np, orbax.checkpoint, PIL.Image
import multiprocessing.shared_memory

def refuse(event, given):
  if event in ('open', 'os.listdir', 'os.scandir') and str(
      given[0]).startswith(('/proc', '/dev/shm')):
    raise FileNotFoundError(2, 'No such file or directory', given[0])
sys.addaudithook(refuse)
link = os.readlink
def readlink(path, **more):
  refuse('open', [path])
  return link(path, **more)
os.readlink = readlink
for module, names in json.loads(sys.argv[3]).items():
  for name in names:
    if hasattr(sys.modules[module], name) and not (
        system == 'macOS' and name in sys.argv[4].split()):
      delattr(sys.modules[module], name)
if system == 'Windows':
  for name in 'fcntl', 'resource':
    sys.modules[name] = None

import importlib
for path in sorted(pathlib.Path('cdm').rglob('*.py')):
  if path.name not in ('__init__.py', '__main__.py'):
    importlib.import_module('.'.join(path.with_suffix('').parts))

from cdm.cli import main
from cdm.data import folder as source, host_memory, npz_images, pipeline
from cdm.planning import compilation
from cdm.distributed import device_specs, user_cache
from cdm.reporting import process_age, session_log
from cdm.training import utilization
pipeline._SHARED_MEMORY = '/nowhere'
images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
np.savez(folder / 'images.npz', arr_0=images)
read = npz_images.open_images(folder / 'images.npz').read
assert (read(1) == images[1]).all() and (read(0) == images[0]).all()
(folder / 'pictures').mkdir()
PIL.Image.fromarray(images[0]).save(folder / 'pictures' / '0.png')
pictures = source.Folder(folder / 'pictures')
options = pipeline.PipelineOptions(image_size=4)
iterator = pipeline.make_iterator(pictures, options, batch_size=1, seed=0)
assert (next(iterator)['image'] == images[:1]).all()
iterator.close()
assert process_age.seconds() >= 0
assert (session_log.peak_host_bytes() > 0) == (system == 'macOS')
utilization._STATM = pathlib.Path('/nowhere')
assert utilization.host_memory() == session_log.peak_host_bytes()
piece = device_specs.parse('cpu:2')
if host_memory.total_bytes():
  assert compilation.device_memory(piece)[0] > 0
else:
  try:
    compilation.device_memory(piece)
  except ValueError as error:
    assert 'does not tell how much memory' in str(error)
assert user_cache.folder('plan').is_dir()
sys.exit(main.main(['describe', '--config=configs/smoke.py']))
"""
# Of what Windows lacks, macOS has these.
ON_MACOS = (
  'pread pwrite sysconf getuid geteuid getgid fork register_at_fork poll '
  'mkfifo getpgid setsid killpg chown lchown O_NOFOLLOW O_NONBLOCK '
  'getloadavg sendfile SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM SIGPIPE '
  'SIGBUS SIGCHLD alarm setitimer pthread_sigmask sigwait AF_UNIX '
  'SO_REUSEPORT kqueue forkpty mknod '
)


def imitate(system, folder):
  lacking = {name: list(names) for name, names in UNUSED.items()}
  for name in LACKING:
    module, attribute = name.split('.')
    if module in ('os', 'select'):
      lacking[module].append(attribute)
  done = subprocess.run(
    [sys.executable, '-c', READ, system, folder, json.dumps(lacking), ON_MACOS],
    cwd=ROOT,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(ROOT),
      'XDG_CACHE_HOME': str(folder),
    },
    capture_output=True,
    text=True,
    encoding='utf-8',
  )
  assert done.returncode == 0, done.stderr
  assert 'parameters' in done.stdout


def test_a_machine_without_proc_reads_and_describes(tmp_path):
  """As macOS, which also lacks /dev/shm and some calls of Linux."""
  imitate('macOS', tmp_path)


def test_pictures_are_read_where_windows_lacks_the_calls_of_posix(tmp_path):
  imitate('Windows', tmp_path)
