"""launch/setup.sh: which Python it takes, what it refuses, what it makes anew.

Machines and Pythons that are not here are played by scripts in front of PATH.
"""

import functools
import os
import pathlib
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOOD = '3.13 x86_64 64 CPython'


@pytest.fixture(scope='module')
def programs(tmp_path_factory):
  """A folder with the programs of this machine, but for Pythons and uv."""
  folder = tmp_path_factory.mktemp('programs')
  for path in os.defpath.split(':'):
    for program in pathlib.Path(path).glob('*'):
      link = folder / program.name
      if not program.name.startswith(('python', 'uv')) and not link.exists():
        link.symlink_to(program)
  return folder


@pytest.fixture
def played(tmp_path, programs):
  """A folder, searched first, for programs that a test plays."""
  folder = tmp_path / 'bin with space'
  folder.mkdir()
  (folder / '.rest').symlink_to(programs)
  # Where this is a Mac, the x86-64 Pythons below would run under Rosetta.
  play(folder, 'uname', '[ "$1" = -m ] && echo x86_64 || echo Linux')
  return folder


def play(folder, name, script):
  path = folder / name
  path.unlink(missing_ok=True)
  path.write_text(f'#!/bin/sh\n{script}\n', encoding='utf-8')
  path.chmod(0o755)


def play_python(folder, name, described):
  play(folder, name, f'echo "{described}"' if described else 'exit 1')


def run(folder, command, **variables):
  """Runs a command after sourcing setup.sh, with the played programs only."""
  return subprocess.run(
    ['bash', '-c', f'set -euo pipefail; source launch/setup.sh; {command}'],
    cwd=ROOT,
    env={
      'PATH': f'{folder}:{folder}/.rest',
      'HOME': '/nonexistent',
      **variables,
    },
    capture_output=True,
    text=True,
    check=False,
    encoding='utf-8',
  )


@pytest.mark.parametrize(
  ('found', 'chosen'),
  [
    ({'python3': '3.15', 'python3.12': '3.12'}, 'python3.12'),
    ({'python3.14': '3.14', 'python3.13': '3.13'}, 'python3.13'),
    ({'python3.14': '3.14', 'python3': '3.9'}, 'python3.14'),
    ({'python3.13': None, 'python3': '3.11'}, 'python3'),
  ],
)
def test_the_first_python_that_the_pins_support_is_taken(played, found, chosen):
  for name, version in found.items():
    play_python(played, name, version and f'{version} x86_64 64 CPython')
  done = run(played, 'find_python')
  assert (done.returncode, done.stdout) == (0, f'{played / chosen}\n')


def test_pythons_that_cannot_be_used_are_named(played):
  play_python(played, 'python3', '3.15 x86_64 64 CPython')
  play_python(played, 'python', '3.9 x86_64 64 CPython')
  done = run(played, 'find_python')
  assert done.returncode and not done.stdout
  assert 'python3 is 3.15. python is 3.9.' in done.stderr
  assert 'uv python install 3.13' in done.stderr


@pytest.mark.parametrize(
  ('described', 'why'),
  [
    (None, 'does not start'),
    ('3.15 x86_64 64 CPython', 'is 3.15'),
    ('3.13 armv7l 32 CPython', 'of 32 bits'),
    ('3.11 x86_64 64 PyPy', 'is PyPy'),
  ],
)
def test_a_named_python_is_refused_and_not_passed_over(played, described, why):
  play_python(played, 'python3.13', GOOD)
  play_python(played, 'mine', described)
  done = run(played, 'find_python', CDM_PYTHON='mine')
  assert done.returncode and not done.stdout
  assert done.stderr.startswith('CDM_PYTHON=mine ') and why in done.stderr


def test_a_python_that_does_not_start_says_why_itself(played):
  play(played, 'mine', 'echo "libpython3.12.so: no such file" >&2; exit 127')
  for name, found in (
    ('mine', 'CDM_PYTHON=mine does not start (libpython3.12.so: no such file)'),
    ('none', 'none: command not found)'),
  ):
    assert found in run(played, 'find_python', CDM_PYTHON=name).stderr


def test_a_python_under_rosetta_is_refused(played):
  play(played, 'uname', '[ "$1" = -m ] && echo x86_64 || echo Darwin')
  play_python(played, 'python3', GOOD)
  assert 'Rosetta' in run(played, 'find_python').stderr


@pytest.mark.parametrize(
  ('system', 'machine', 'more', 'refusal'),
  [
    ('MINGW64_NT-10.0', 'x86_64', {}, 'WSL2'),
    ('FreeBSD', 'amd64', {}, 'FreeBSD'),
    ('Darwin', 'x86_64', {'sysctl': 'echo 0'}, 'Intel processor'),
    ('Darwin', 'arm64', {'sysctl': 'echo 1'}, None),
    # An Intel shell under Rosetta on Apple silicon.
    ('Darwin', 'x86_64', {'sysctl': 'echo 1'}, None),
    ('Linux', 'x86_64', {'getconf': 'echo glibc 2.36'}, None),
    ('Linux', 'aarch64', {'getconf': 'echo glibc 2.28'}, None),
    ('Linux', 'x86_64', {'getconf': 'echo glibc 2.17'}, 'glibc 2.17'),
    ('Linux', 'x86_64', {'getconf': 'exit 1'}, 'musl'),
    ('Linux', 'riscv64', {'getconf': 'echo glibc 2.36'}, 'riscv64'),
  ],
)
def test_a_machine_without_packages_is_refused_at_first(
  played, system, machine, more, refusal
):
  play(played, 'uname', f'[ "$1" = -m ] && echo {machine} || echo {system}')
  for name, script in more.items():
    play(played, name, script)
  done = run(played, 'check_machine')
  assert bool(done.returncode) == bool(refusal), done.stderr
  assert (refusal or '') in done.stderr


@functools.cache
def python_with_pip():
  """-> this Python or the one it is an environment of, which uv leaves bare."""
  for python in (sys.executable, sys._base_executable):
    command = [python, '-m', 'pip', '--version']
    if not subprocess.run(command, capture_output=True).returncode:
      return python
  pytest.skip('neither this Python nor the one below it has pip')


def play_debian(folder):
  """Plays a real Python with pip, without ensurepip, as Debian splits it."""
  version = '.'.join(map(str, sys.version_info[:2]))
  play(
    folder,
    f'python{version}',
    '[ "$2" = "import ensurepip, venv" ] && exit 1\n'
    f'exec {shlex.quote(python_with_pip())} "$@"',
  )
  return f'python{version}'


def test_without_ensurepip_the_pip_of_the_base_installs(played, tmp_path):
  python, venv = play_debian(played), tmp_path / 'a place' / 'venv'
  done = run(
    played,
    f'VENV="{venv}" PYTHON="{venv}/bin/python"; '
    f'make_environment {python}; '
    '"$PYTHON" -c "import sys; print(sys.prefix)"; '
    '"${INSTALLER[@]}" --help > /dev/null; '
    'printf "%s\\n" "${INSTALLER[@]}"',
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith(f'{venv}\n{python}\n-m\npip\n--python\n')
  assert not (venv / 'bin' / 'pip').exists()


def test_with_neither_pip_nor_uv_the_package_is_named(played, tmp_path):
  play(
    played,
    'python3.13',
    'case "$*" in *ensurepip*|*pip*|*venv*) exit 1;; esac\necho ' + GOOD,
  )
  venv = tmp_path / 'venv'
  done = run(played, f'VENV="{venv}" PYTHON=x; make_environment python3.13')
  assert done.returncode and 'apt install python3.13-venv' in done.stderr


def test_a_folder_that_is_no_environment_is_kept(played, tmp_path):
  play_python(played, 'python3.13', GOOD)
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'thesis.txt').write_text('x', encoding='utf-8')
  done = run(
    played, f'VENV="{tmp_path}/mine" PYTHON=x; make_environment python3.13'
  )
  assert done.returncode and 'not an environment' in done.stderr
  assert (tmp_path / 'mine' / 'thesis.txt').exists()


# From here on the environment is real, and only the installation is played.
PLAYED = (
  'check_machine() { :; }; '
  'install_packages() { echo "played: $PYTHON"; }; set_up'
)


def test_what_is_installed_is_not_installed_again(played, tmp_path):
  play_debian(played)
  folder, venv = played, tmp_path / 'v'
  first, second = (run(folder, PLAYED, CDM_VENV=str(venv)) for _ in range(2))
  assert f'played: {venv}/bin/python' in first.stdout, first.stderr
  assert second.stdout == f'Packages: already installed in {venv}.\n'


@pytest.mark.parametrize('change', ['another version', 'dangling'])
def test_an_environment_of_a_python_that_changed_is_made_anew(
  played, tmp_path, change
):
  play_debian(played)
  folder, venv = played, tmp_path / 'v'
  run(folder, PLAYED, CDM_VENV=str(venv))
  (venv / 'left').write_text('over', encoding='utf-8')
  if change == 'dangling':
    (venv / 'bin' / 'python').unlink()
    (venv / 'bin' / 'python').symlink_to('/nonexistent/python')
  else:
    stamp = venv / '.cdm-installed'
    stamp.write_text(
      stamp.read_text(encoding='utf-8').replace('3.1', '3.0', 1),
      encoding='utf-8',
    )
  again = run(folder, PLAYED, CDM_VENV=str(venv))
  assert 'made anew' in again.stdout and 'played' in again.stdout, again.stderr
  assert not (venv / 'left').exists()


def test_changed_pins_are_installed_into_the_same_environment(played, tmp_path):
  play_debian(played)
  folder, venv = played, tmp_path / 'v'
  run(folder, PLAYED, CDM_VENV=str(venv))
  (venv / 'kept').write_text('', encoding='utf-8')
  stamp = venv / '.cdm-installed'
  stamp.write_text(stamp.read_text(encoding='utf-8') + '0', encoding='utf-8')
  again = run(folder, PLAYED, CDM_VENV=str(venv))
  assert 'played' in again.stdout and (venv / 'kept').exists(), again.stderr


@pytest.mark.parametrize(('home', 'cached'), [('', '1'), ('/home/me', '')])
def test_without_a_home_no_cache_is_made_in_the_checkout(played, home, cached):
  said = run(played, 'echo "${PIP_NO_CACHE_DIR-},${UV_NO_CACHE-}"', HOME=home)
  assert said.stdout == f'{cached},{cached}\n'


def test_what_modules_export_for_another_python_is_unset(played):
  done = run(
    played,
    'echo "[${PIP_USER-}${PYTHONPATH-}${PYTHONHOME-}]"',
    PIP_USER='1',
    PYTHONPATH='/opt/x',
    PYTHONHOME='/opt/y',
  )
  assert done.stdout == '[]\n'
