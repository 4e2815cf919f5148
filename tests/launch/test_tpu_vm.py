"""The target tpu-vm: its two scripts, among stand-ins for what they call."""

import os
import re
import subprocess

import pytest
from support.launched import planned, rendered, target, tool

SLICE = (
  '--image=images.example/p/r/cdm:tpu',
  '--type=v5litepod-16',
  '--zone=z',
  '--storage=gs://lab-runs',
  '--workdir=/gcs/lab-runs/it is',
)
# What quoting has to survive.
NASTY = '--config.train_data.path=/a b/it\'s "$HOME" `id` $(id) \\ & #@x@ ü%j'
# States come one by one, and the last one stays. An empty one is a request that
# is not there; `no answer` is a network out of order.
GCLOUD = r"""
echo "$*" >> calls
case "$*" in
  *failedData*) echo 'no capacity before the time was over' ;;
  *describe*)
    state=$(head -n 1 states)
    if [ "$(wc -l < states)" -gt 1 ]; then
      tail -n +2 states > rest; mv rest states
    fi
    case $state in
      '') echo 'ERROR: NOT_FOUND: Resource was not found' >&2; exit 1 ;;
      'no answer') echo 'ERROR: connection refused' >&2; exit 1 ;;
    esac
    echo "$state"
    ;;
  *' create '*) exit "$(cat create_code)" ;;
  *ssh*)
    [ ! -e no_ssh ] || exit 255
    command=${@: -1}
    command=${command#--command=}
    bash -c "${command//\/var\/lib\/cdm/host}"
    ;;
esac
"""


@pytest.fixture
def watch(tmp_path):
  """-> watch(states, ...): the finished launcher's script, and its calls."""

  def run(states, *arguments, host=None, create_code=0, sleep=''):
    tool(tmp_path, 'gcloud', GCLOUD)
    tool(tmp_path, 'sudo', 'exec "$@"')
    tool(tmp_path, 'sleep', sleep)
    (tmp_path / 'states').write_text('\n'.join(states) + '\n', encoding='utf-8')
    (tmp_path / 'create_code').write_text(str(create_code), encoding='utf-8')
    (tmp_path / 'host').mkdir()
    for name, text in (host or {}).items():
      (tmp_path / 'host' / name).write_text(text, encoding='utf-8')
    _, script = rendered('tpu-vm', *SLICE, '--spot', *arguments)
    done = subprocess.run(
      ['bash', '-c', script],
      cwd=tmp_path,
      env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
      capture_output=True,
      text=True,
      timeout=600,
      encoding='utf-8',
    )
    calls = (tmp_path / 'calls').read_text(encoding='utf-8')
    acts = re.findall(r'queued-resources (create|delete)', calls)
    return done, acts, calls

  return run


def test_a_slice_taken_away_is_asked_for_again(watch):
  states = ['', 'WAITING_FOR_RESOURCES', 'ACTIVE', 'SUSPENDED', 'ACTIVE']
  done, acts, calls = watch(
    states,
    host={'log': 'one\nstep 7\n'},
    # Time passes: in the end host 0 has an exit code.
    sleep='[ "$(wc -l < states)" -gt 1 ] || echo 3 > host/exit_code',
  )
  assert done.returncode == 3, done.stderr
  assert 'step 7' in done.stdout
  assert 'taken away 1 times, of at most 50' in done.stdout
  assert acts == ['create', 'delete', 'create', 'delete']
  assert 'startup-script=cdm-smoke-host.sh' in calls
  assert '--accelerator-type=v5litepod-16' in calls
  assert '--runtime-version=v2-alpha-tpuv5-lite --spot' in calls


def test_the_end_of_a_wait_is_an_end(watch):
  """The request is not made 51 times."""
  states = ['', 'WAITING_FOR_RESOURCES', 'FAILED']
  done, acts, calls = watch(states, '--valid_until=6h')
  assert done.returncode == 69
  assert 'no capacity before the time was over' in done.stdout
  assert 'not granted within 6h; giving up' in done.stdout
  assert acts == ['create', 'delete']
  assert '--valid-until-duration=6h' in calls


def test_failed_requests_without_a_time_are_repeated_three_times(watch):
  done, acts, _ = watch(['', 'FAILED'])
  assert done.returncode == 69
  assert acts == ['create', 'delete'] * 3
  assert 'not granted; giving up' in done.stdout


def test_a_granted_slice_that_fails_was_taken_away(watch):
  """Even where a time was given: the wait was not in vain."""
  states = ['', 'ACTIVE', 'FAILED', 'ACTIVE']
  done, acts, _ = watch(
    states,
    '--valid_until=6h',
    host={'log': 'x\n'},
    sleep='[ "$(wc -l < states)" -gt 1 ] || echo 0 > host/exit_code',
  )
  assert done.returncode == 0, done.stdout
  assert acts == ['create', 'delete', 'create', 'delete']


def test_slices_taken_away_are_counted_apart_from_requests(watch):
  done, acts, _ = watch(['', 'SUSPENDED'], '--restarts=2')
  assert done.returncode == 75
  assert acts == ['create', 'delete'] * 3
  assert 'taken away 3 times, of at most 2' in done.stdout


def test_requests_are_limited_in_all(watch):
  done, acts, _ = watch(['', 'SUSPENDED'], '--requests=2')
  assert done.returncode == 69
  assert 'asked for a slice 2 times; giving up' in done.stdout
  assert acts == ['create', 'delete'] * 2


def test_a_wrong_request_ends_at_once(watch):
  done, acts, _ = watch([''], create_code=1)
  assert done.returncode == 1
  assert acts == ['create']


def test_a_request_that_somebody_deleted_is_not_made_again(watch):
  states = ['', 'WAITING_FOR_RESOURCES', 'DELETING', '']
  done, acts, _ = watch(states)
  assert done.returncode == 1
  assert 'somebody deleted the request' in done.stdout
  assert acts == ['create']


def test_a_network_out_of_order_makes_no_request(watch):
  states = ['', 'WAITING_FOR_RESOURCES', *['no answer'] * 5, 'ACTIVE']
  done, acts, _ = watch(states, host={'log': 'x\n', 'exit_code': '0\n'})
  assert done.returncode == 0
  assert acts == ['create', 'delete']


def test_a_launcher_that_comes_later_makes_no_request(watch):
  done, acts, _ = watch(['ACTIVE'], host={'log': 'x\n', 'exit_code': '5\n'})
  assert done.returncode == 5
  assert acts == ['delete']


def test_a_slice_preempted_while_its_hosts_mount_is_asked_for_again(
  watch, tmp_path
):
  """Host 0 has not answered yet when it is taken away."""
  states = ['', 'ACTIVE', 'ACTIVE', 'SUSPENDED', 'ACTIVE']
  (tmp_path / 'no_ssh').touch()
  done, acts, _ = watch(
    states,
    host={'log': 'x\n', 'exit_code': '0\n'},
    sleep='[ "$(wc -l < states)" -gt 1 ] || rm -f no_ssh',
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.count('host 0 does not answer') >= 2
  assert acts == ['create', 'delete', 'create', 'delete']


def test_a_slice_whose_host_never_answers_is_given_back(watch, tmp_path):
  (tmp_path / 'no_ssh').touch()
  done, acts, _ = watch(['', 'ACTIVE'], '--poll_seconds=600')
  assert done.returncode == 69
  assert 'host 0 has not answered for 3600 s' in done.stdout
  assert acts == ['create', 'delete']


def test_the_launcher_tells_why_a_slice_was_given_back(watch):
  host = {'log': 'x\n', 'reason': 'mounting failed\n', 'exit_code': '69\n'}
  done, acts, calls = watch(['', 'ACTIVE'], host=host)
  assert done.returncode == 69
  assert 'mounting failed' in done.stdout
  assert '--worker=all' in calls
  assert acts == ['create', 'delete']


# Stand-ins of a host. A file with a program's name says how often it fails.
FAILING = r"""
left=$(cat {name}.fails 2> /dev/null || echo 0)
echo "{name} $*" >> calls
if [ "$left" -gt 0 ]; then echo $((left - 1)) > {name}.fails; exit 1; fi
"""
DOCKER = r"""
case "$1" in
  run) printf "%s\n" "$@" > words; code=$(head -n 1 codes)
    cp state/secrets secrets
    tail -n +2 codes > rest; mv rest codes; exit "$code" ;;
  pull) ;;
  *) exit 0 ;;
esac
"""


@pytest.fixture
def host(tmp_path):
  """-> host(codes, ...): its state after the start-up script, and its calls."""

  def run(codes, *arguments, fails=None, worker=0, storage='gs', seconds=0):
    for name, times in (fails or {}).items():
      (tmp_path / f'{name}.fails').write_text(str(times), encoding='utf-8')
    (tmp_path / 'codes').write_text('\n'.join(codes) + '\n', encoding='utf-8')
    tool(tmp_path, 'mountpoint', 'exit 1')
    tool(tmp_path, 'mkdir', '[ "$2" = state ] && exec /bin/mkdir "$@"')
    tool(tmp_path, 'lsb_release', 'echo jammy')
    tool(tmp_path, 'sleep', 'echo "sleep $*" >> calls')
    tool(tmp_path, 'curl', f'echo {worker}')
    tool(tmp_path, 'apt-get', FAILING.format(name='apt-get'))
    tool(tmp_path, 'gcsfuse', FAILING.format(name='gcsfuse'))
    tool(tmp_path, 'mount', FAILING.format(name='mount'))
    tool(tmp_path, 'docker', DOCKER + FAILING.format(name='docker'))
    tool(
      tmp_path,
      'gcloud',
      FAILING.format(name='gcloud')
      + '[[ "$*" != *secrets* ]] || echo "it\'s \\$ecret"',
    )
    options = list(SLICE)
    if storage == 'nfs':
      options[3:] = ['--storage=10.0.0.2:/runs', '--workdir=/nfs/r']
    script, _ = rendered('tpu-vm', *options, *arguments)
    script = script.replace('/usr/share/keyrings', str(tmp_path))
    script = script.replace('/etc/apt/sources.list.d', str(tmp_path))
    subprocess.run(
      ['bash', '-c', f'SECONDS={seconds}\n{script}'],
      cwd=tmp_path,
      env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'STATE': 'state'},
      check=True,
      timeout=600,
    )

    def read(name):
      path = tmp_path / name
      return path.read_text(encoding='utf-8') if path.exists() else ''

    return read

  return run


@pytest.mark.parametrize(
  'codes, end',
  [
    ('75 1 137 0', 0),
    ('75 4', 4),
    ('76 76 77 76 76 0', 0),  # another host was still booting
    ('77 76 76 76', 76),  # it does not come
  ],
)
def test_a_host_starts_again_what_was_preempted(host, codes, end):
  read = host(codes.split(), NASTY)
  assert read('state/exit_code') == f'{end}\n'
  assert read('codes') == ''
  assert NASTY in read('words').splitlines()
  assert read('state/reason') == ''


@pytest.mark.parametrize('storage, name', [('gs', 'gcsfuse'), ('nfs', 'mount')])
def test_mounting_is_repeated_until_it_works(host, storage, name):
  read = host(['0'], fails={name: 4}, storage=storage)
  assert read('state/exit_code') == '0\n'
  assert read('calls').count(f'{name} ') == 5


@pytest.mark.parametrize(
  'storage, name, reason',
  [
    ('gs', 'gcsfuse', 'mounting gs://lab-runs failed; 3 tries'),
    ('nfs', 'mount', 'mounting 10.0.0.2:/runs failed; 3 tries'),
    ('gs', 'docker', 'pulling images.example/p/r/cdm:tpu failed; 3 tries'),
  ],
)
def test_a_slice_that_cannot_be_prepared_is_given_back_with_the_reason(
  host, monkeypatch, storage, name, reason
):
  assert target('tpu-vm').PREPARE_TRIES == 30  # 20 seconds apart
  monkeypatch.setattr(target('tpu-vm'), 'PREPARE_TRIES', 3)
  read = host(['0'], fails={name: 99}, storage=storage, worker=3)
  assert read('state/exit_code') == '69\n'
  assert read('state/reason').startswith(reason)
  assert read('words') == ''  # The run was never started.
  # Any host deletes the slice, where no launcher did within the grace.
  last = read('calls').splitlines()[-2:]
  assert last[0] == 'sleep 900'
  assert 'queued-resources delete cdm-smoke --zone=z --force' in last[1]


def test_a_slice_is_given_back_when_the_time_to_prepare_is_over(host):
  read = host(['0'], fails={'docker': 99}, seconds=1800)
  assert read('calls').count('docker pull') == 1
  assert 'pulling' in read('state/reason') and '1 tries' in read('state/reason')


@pytest.mark.parametrize('worker, deletes', [(0, True), (1, False)])
def test_host_0_deletes_a_slice_that_no_launcher_watches(host, worker, deletes):
  read = host(['0'], '--poll_seconds=600', worker=worker)
  assert ('queued-resources delete' in read('calls')) == deletes
  # Three looks of the launcher come first.
  assert ('sleep 1800' in read('calls')) == deletes


def test_variables_and_secrets_reach_the_run(host):
  read = host(
    ['0'],
    '--env=XLA_FLAGS=--a=\'b\' "$c"',
    '--env=WANDB_API_KEY=projects/p/secrets/w/versions/3',
  )
  words = read('words').splitlines()
  assert '--env=XLA_FLAGS=--a=\'b\' "$c"' in words
  assert '--env=JAX_PLATFORMS=tpu,cpu' in words
  assert '--env-file=state/secrets' in words
  # A dry run shows no reference, as it shows no secret.
  assert 'gcloud --quiet secrets versions access ***' in read('calls')
  assert read('secrets') == "WANDB_API_KEY=it's $ecret\n"
  assert 'ecret' not in read('words').replace('secrets', '')


def test_a_secret_itself_is_refused():
  with pytest.raises(ValueError, match='gcloud secrets create') as caught:
    planned('tpu-vm', *SLICE, '--env=WANDB_API_KEY=abc')
  assert 'abc' not in str(caught.value)


def test_a_slice_that_the_api_does_not_have_is_sent_to_gke():
  arguments = [word for word in SLICE if not word.startswith('--type')]
  with pytest.raises(ValueError, match='the target gke with --tpu=tpu7x'):
    planned('tpu-vm', *arguments, '--type=tpu7x-16')
