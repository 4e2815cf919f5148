"""What is carried to a GPU is whole, small enough, and the same each time."""

import json
import sys
import zipfile

import pytest

from benchmarks.gpu import prepare, prepared_files

PIXELS = b'not a picture, and nobody looks at it' * 50


@pytest.fixture
def data(tmp_path):
  """Archives with the names and folders of the real ones, and few members."""
  folder = tmp_path / 'archives'
  folder.mkdir()
  with zipfile.ZipFile(folder / 'faces128.zip', 'w') as pack:
    for n in range(20):
      pack.writestr(f'faces128/train/{n:02d}.webp', PIXELS + bytes([n]))
    for n in range(3):
      pack.writestr(f'faces128/val/{n}.webp', PIXELS + bytes([n]))
  with zipfile.ZipFile(folder / 'metric_nets.zip', 'w') as pack:
    for name in ('cifar10_resnet56', 'cifar10_resnet20'):
      pack.writestr(f'metric_nets/{name}.npz', name)
  return folder


def run(data, out, *words):
  prepare.main([f'--out={out}', f'--data={data}', '--missing=', *words])
  return json.loads((out / 'manifest.json').read_text(encoding='utf-8'))


def names(path):
  with zipfile.ZipFile(path) as pack:
    return pack.namelist()


def test_the_manifest_holds_what_sha256sum_says(data, tmp_path):
  manifest = run(data, tmp_path / 'out', '--jobs=4')
  assert [f['path'] for f in manifest['files']] == [
    'data/faces128.zip',
    'data/metric_nets.zip',
  ]
  for entry in manifest['files']:
    import hashlib

    content = (tmp_path / 'out' / entry['path']).read_bytes()
    assert entry['sha256'] == hashlib.sha256(content).hexdigest()
    assert entry['bytes'] == len(content)
  assert 'run.py 4 OUT' in manifest['commands'][0]


def test_only_the_network_that_judges_is_taken(data, tmp_path):
  run(data, tmp_path / 'out', '--jobs=4,8')
  assert names(tmp_path / 'out/data/metric_nets.zip') == [
    'metric_nets/cifar10_resnet56.npz'
  ]


def test_a_second_call_changes_no_byte_and_no_time(data, tmp_path):
  out = tmp_path / 'out'
  first = run(data, out, '--jobs=4')
  times = {p: p.stat().st_mtime_ns for p in (out / 'data').iterdir()}
  assert run(data, out, '--jobs=4') == first
  assert {p: p.stat().st_mtime_ns for p in (out / 'data').iterdir()} == times


def test_a_half_copied_archive_is_copied_again(data, tmp_path):
  out = tmp_path / 'out'
  first = run(data, out, '--jobs=4')
  archive = out / 'data' / 'faces128.zip'
  archive.write_bytes(archive.read_bytes()[:-100])
  assert run(data, out, '--jobs=4') == first


def test_what_other_jobs_needed_is_removed(data, tmp_path):
  run(data, tmp_path / 'out', '--jobs=4')
  assert run(data, tmp_path / 'out', '--jobs=1')['files'] == []


def test_fewer_training_images_leave_every_held_out_one(data, tmp_path):
  run(data, tmp_path / 'out', '--jobs=4', '--train_images=5')
  kept = names(tmp_path / 'out/data/faces128.zip')
  assert [n for n in kept if '/train/' in n] == [
    f'faces128/train/{n:02d}.webp' for n in (0, 4, 8, 12, 16)
  ]
  assert sum('/val/' in n for n in kept) == 3


def test_too_much_is_refused_with_the_largest_files(data, tmp_path):
  with pytest.raises(SystemExit) as refused:
    run(data, tmp_path / 'out', '--jobs=4', '--limit_mib=0.01')
  assert 'the limit is 0.01 MiB' in str(refused.value)
  assert 'sparse-checkout' in str(refused.value)
  assert str(refused.value).count(' MiB  /') == prepare.NAMED
  assert not (tmp_path / 'out' / 'manifest.json').exists()


def test_the_working_tree_counts_and_the_folder_counts_once(data, tmp_path):
  run(data, tmp_path / 'out', '--jobs=4')
  listed = prepare.repository_files(tmp_path / 'out')
  inside = prepare.ROOT / 'benchmarks'
  assert inside / 'gpu' / 'run.py' in listed
  assert not any(
    path.is_relative_to(inside) for path in prepare.repository_files(inside)
  )


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--jobs=5'], "names '5'; the jobs are 1, 2, 3, 4, 7, 8"),
    (['--jobs=7'], 'cifar10_train_a.zip does not exist'),
    (['--jobs=1', '--missing=nothing'], 'no version of nothing'),
    (['--jobs=1', '--weights=/nowhere'], 'has no weights.json'),
  ],
)
def test_what_is_not_there_is_named(data, tmp_path, words, message):
  with pytest.raises(SystemExit, match=message):
    run(data, tmp_path / 'out', *words)


def test_wheels_are_those_of_the_machine_at_the_pinned_versions(
  data, tmp_path, monkeypatch
):
  """pip's own parser reads the words; a stand-in writes what it would fetch."""
  asked = []

  def download(words, check):
    asked.append(words)
    for name in ('ml_collections-1.1.0', 'array_record-0.8.6-cp312'):
      (tmp_path / 'out' / 'wheels' / f'{name}-any.whl').write_bytes(b'wheel')

  monkeypatch.setattr(prepare.subprocess, 'run', download)
  monkeypatch.setattr(prepare, 'repository_files', lambda out: [])
  monkeypatch.setattr(prepare, 'commit', lambda: 'abc')
  pins = prepare.pinned(prepare.ROOT / 'constraints.txt')
  assert pins['ml-collections'] == '1.1.0' and pins['array-record'] == '0.8.6'
  missing = '--missing=ml-collections array-record'
  manifest = run(data, tmp_path / 'out', '--jobs=1', missing)
  assert [f['path'] for f in manifest['files']] == [
    'wheels/array_record-0.8.6-cp312-any.whl',
    'wheels/ml_collections-1.1.0-any.whl',
  ]
  from pip._internal.commands import create_command

  command = create_command('download')
  options, wanted = command.parse_args(asked[0][4:])
  assert wanted == ['ml-collections==1.1.0', 'array-record==0.8.6']
  assert options.python_version == (3, 12)
  assert {'cp312', 'abi3', 'none'} == set(options.abis)
  assert 'manylinux_2_28_x86_64' in options.platforms
  run(data, tmp_path / 'out', '--jobs=1', missing)
  assert len(asked) == 1  # They are there.


def test_a_damaged_file_is_found_where_it_arrives(data, tmp_path):
  out = tmp_path / 'out'
  run(data, out, '--jobs=4')
  assert prepared_files.read(out)['jobs'] == ['4']
  path = out / 'data' / 'metric_nets.zip'
  content = bytearray(path.read_bytes())
  content[40] ^= 1
  path.write_bytes(content)
  with pytest.raises(SystemExit, match='metric_nets.zip is not the file'):
    prepared_files.read(out)
  path.unlink()
  with pytest.raises(SystemExit, match='metric_nets.zip is missing'):
    prepared_files.read(out)
  (out / 'manifest.json').write_text('{', encoding='utf-8')
  with pytest.raises(SystemExit, match='manifest.json cannot be read'):
    prepared_files.read(out)


def test_the_script_that_runs_first_needs_no_package():
  """On a bare machine nothing is installed yet when run.py starts."""
  import subprocess

  code = (
    'import sys; import benchmarks.gpu.run; '
    "print([m for m in sys.modules if m.split('.')[0] in "
    "('jax', 'numpy', 'cdm', 'ml_collections')])"
  )
  done = subprocess.run(
    [sys.executable, '-S', '-c', code],
    cwd=prepare.ROOT,
    capture_output=True,
    check=True,
    encoding='utf-8',
  )
  assert done.stdout.strip() == '[]'
