"""Shell scripts keep to bash 3.2, which macOS has, and to what BSD has."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
  [
    *(ROOT / 'launch').rglob('*.sh'),
    *(ROOT / 'benchmarks').glob('*.sh'),
    *(ROOT / '.ci').iterdir(),
  ]
)
# What came after bash 3.2: a pattern, and lines that it has to find.
NEWER = {
  r'\b(mapfile|readarray|coproc)\b': ['mapfile -t lines < file'],
  r'\b(declare|local|typeset)\s+(-\w+\s+)*-\w*[Aglnu]': [
    'declare -A seen',
    'local -r -n name=$1',
  ],
  r'\$\{!?\w+(\[[^]]*\])?[,^~@]': ['${x,,}', '${x^}', '${a[0]^^}', '${x@Q}'],
  r'\$\{\w+\[-': ['${words[-1]}'],
  r'\$\{\w+:[^}?=+-][^}]*:\s*-': ['${x:0:-1}', '${x: -3:-1}'],
  r'\|&': ['make |& tee log'],
  r'&>>': ['make &>> log'],
  r';;?&': ['a) echo ;;&', 'a) echo ;&'],
  r'%(-?\d+)?\([^)]*\)T': ["printf '%(%F)T' -1"],
  r'\[\[? (! )?-[vR] ': ['[[ -v x ]]', '[ -v x ]'],
  r'\bwait -[np]': ['wait -n'],
  r'\bread -\w*[Ni]': ['read -N 1 key'],
  r'\bexec \{\w+\}': ['exec {fd}> file'],
  r'\b(globstar|lastpipe|inherit_errexit)\b': ['shopt -s globstar'],
  r'\{\w+\.\.\w+\.\.': ['{1..9..2}'],
  r'\{0\d+\.\.': ['{01..10}'],
  r'\$\{?(BASHPID|EPOCH\w+|SRANDOM)\b': ['$BASHPID', '${EPOCHSECONDS}'],
  r"\$'[^']*\\[uU]": [r"$'\u00e9'"],
}
# What GNU's programs have and BSD's or busybox's lack. The scripts for a node
# of a cluster run where it has Linux.
GNU_ALONE = {
  r'\bsed (-\w+ )*-i': ['sed -i 1d file'],
  r'\bsed (-\w+ )*-[nr]*r': ['sed -r s/a+/b/'],
  r'\bgrep (-\w+ )*-\w*P': ['grep -oP x'],
  r'\bdate (-\w+ )*(-d|--date|-I\w|--iso)': ['date -d tomorrow', 'date -Is'],
  r'\bstat (-\w+ )*(-c|--format|--printf)': ['stat -c %s file'],
  r'\breadlink (-\w+ )*-[em]\b': ['readlink -m a'],
  r'\brealpath (-\w+ )*-': ['realpath -s a'],
  r'\b(cp|mv|ln|rm|mkdir|du|sort|head|tail|xargs) (-\w+ )*--[a-z]': [
    'cp --recursive a b',
    'sort --version-sort',
  ],
  r'\bcp (-\w+ )*-\w*[adu]': ['cp -a a b'],
  r'\bln (-\w+ )*-\w*[rT]': ['ln -sr a b'],
  r'\bxargs (-\w+ )*-\w*[dr]': ['xargs -r rm'],
  r'\bfind .*-(printf|readable|executable|regextype)\b': [
    r"find . -printf '%p\n'"
  ],
  r'\bhead (-\w+ )*-[nc] ?-': ['head -n -1 file'],
  r'\bsort (-\w+ )*-\w*[VR]': ['sort -V'],
  r'\bmktemp .*(--|-p\b)': ['mktemp -p .', 'mktemp --suffix=.x'],
  r'(^|[^.\w-])(timeout|setsid|nproc|tac|shuf|numfmt|taskset)\b(?! 2>)': [
    'timeout 9 make',
    'n=$(nproc)',
  ],
  r'/dev/(full|shm)|/proc/(?!\S+ 2>)': ['cat /proc/meminfo'],
}
# Those that run on Linux alone, and why.
LINUX = {
  'slurm_one_machine.sh': 'SLURM is for Linux',
  'tpu_vm_host.sh': 'it runs on a TPU VM',
}


def code(script):
  """-> [(number, line)] of a script without its comments."""
  lines = script.read_text(encoding='utf-8').splitlines()
  uncommented = [re.sub(r'(^|\s)#\s.*', '', line) for line in lines]
  return list(enumerate(uncommented, start=1))


def name(path):
  return str(path.relative_to(ROOT))


def lines_with(patterns, script):
  """-> the lines of a script that one of the patterns finds."""
  return [
    f'{name(script)}:{number}: {line.strip()}'
    for number, line in code(script)
    for pattern in patterns
    if re.search(pattern, line)
  ]


def test_every_pattern_finds_what_it_is_for():
  for pattern, examples in {**NEWER, **GNU_ALONE}.items():
    for line in examples:
      assert re.search(pattern, line), (pattern, line)


@pytest.mark.parametrize('script', SCRIPTS, ids=name)
def test_scripts_keep_to_bash_3_2(script):
  assert not lines_with(NEWER, script)
  # Posix mode reads some words otherwise; `sh script` turns it on where sh is
  # bash.
  subprocess.run(['bash', '--posix', '-n', script], check=True)


@pytest.mark.parametrize(
  'script', [s for s in SCRIPTS if s.name not in LINUX], ids=name
)
def test_scripts_ask_nothing_of_gnu_programs_alone(script):
  assert not lines_with(GNU_ALONE, script)


def test_the_commands_that_the_demo_prints_can_be_pasted():
  text = (ROOT / 'launch' / 'demo.sh').read_text(encoding='utf-8')
  (function,) = re.findall(r'^cdm\(\) \{\n.*?^\}\n', text, re.M | re.S)
  words = ['report', '--out=a b/ü', "--title=Anna's $HOME", '']
  said = subprocess.run(
    ['bash', '-c', f'PYTHON=true\n{function}cdm "$@"', 'demo', *words],
    capture_output=True,
    text=True,
    check=True,
    encoding='utf-8',
  ).stdout
  again = subprocess.run(
    ['bash', '-c', f"printf '%s\\0' {said.strip().removeprefix('$ cdm')}"],
    capture_output=True,
    check=True,
  ).stdout
  assert again.decode().split('\0')[:-1] == words
