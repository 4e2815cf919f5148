"""The variables of a run: their grammar, and which of them are secret."""

import argparse
import pathlib
import sys

import pytest

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / 'launch'
sys.path.insert(0, str(LAUNCH))
from targets import environment  # noqa: E402

sys.path.remove(str(LAUNCH))


def read(*words, files=(), here=None):
  """-> (plain, secret) of --env=WORD and of files."""
  given = argparse.Namespace(env=list(words), env_file=list(files))
  found = environment.read(given, here or {})
  return found.plain, found.secret


def test_a_value_is_all_behind_the_first_equals_sign():
  plain, _ = read('XLA_FLAGS=--xla_a=1 --xla_b=$HOME', 'EMPTY=', 'Q="a"')
  assert plain == {
    'XLA_FLAGS': '--xla_a=1 --xla_b=$HOME',
    'EMPTY': '',
    'Q': '"a"',
  }


def test_the_last_one_wins_and_env_wins_over_a_file(tmp_path):
  file = tmp_path / 'env'
  file.write_text('A=1\nB=2\nB=3\n', encoding='utf-8')
  plain, _ = read('A=4', 'A=5', files=[file])
  assert plain == {'A': '5', 'B': '3'}


def test_a_file_is_read_as_docker_reads_it(tmp_path):
  """As docker/cli's pkg/kvfile says of itself."""
  file = tmp_path / 'env'
  file.write_bytes(
    '\ufeff# comment\n\n  \t# another\n  A=1 # part of it \nB= x\ty\u2028z\r\n'
    'C\nD=it\'s "$HOME"\n'.encode()
  )
  plain, _ = read(files=[file], here={'C': 'here', 'X': 'not'})
  assert plain == {
    'A': '1 # part of it ',
    'B': ' x\ty\u2028z',
    'C': 'here',
    'D': 'it\'s "$HOME"',
  }


def test_a_name_alone_takes_the_value_of_the_launcher():
  plain, secret = read('A', 'HF_TOKEN', here={'A': 'x', 'HF_TOKEN': 'y'})
  assert (plain, secret) == ({'A': 'x'}, {'HF_TOKEN': 'y'})


@pytest.mark.parametrize(
  'word, message',
  [
    ('=x', 'expected NAME=VALUE'),
    ('1A=x', 'a digit not first'),
    ('A B=x', 'expected NAME=VALUE'),
    ('A-B=x', 'expected NAME=VALUE'),
    ('GONE', 'GONE has no value here'),
    ('A=hush\nB=x', 'the value of A holds a line break'),
    ('A=hush\x00', 'the value of A holds a line break'),
    ('A=hush\udcff', 'the value of A is not UTF-8'),
    ('CDM_PROCESS_ID=0', 'another one for each process'),
  ],
)
def test_what_is_not_well_formed_is_refused_without_its_value(word, message):
  with pytest.raises(ValueError, match=message) as caught:
    read(word)
  assert 'hush' not in str(caught.value)


@pytest.mark.parametrize(
  'data, message',
  [
    (b'A=1\nB C=hush\n', 'line 2: expected NAME=VALUE'),
    (b'A=\xff', 'is not UTF-8'),
    (b'A="hush"\n', 'line 1: the value of A stands in quotes'),
    (None, 'No such file'),
  ],
)
def test_a_file_that_is_not_well_formed_is_named(tmp_path, data, message):
  file = tmp_path / 'env'
  if data is not None:
    file.write_bytes(data)
  with pytest.raises(ValueError, match=message) as caught:
    read(files=[file])
  assert str(file) in str(caught.value) and 'hush' not in str(caught.value)


@pytest.mark.parametrize(
  'name',
  [
    *('WANDB_API_KEY', 'HF_TOKEN', 'AWS_SECRET_ACCESS_KEY', 'PGPASSWORD'),
    *('AWS_ACCESS_KEY_ID', 'AZURE_STORAGE_KEY', 'apikey', 'DB_PASSWD'),
    *('GOOGLE_APPLICATION_CREDENTIALS', 'SSH_PRIVATE', 'COMET_API_KEYS'),
    *('AWS_SESSION_TOKEN', 'GITHUB_PAT', 'HTTP_AUTH', 'SENTRY_DSN'),
  ],
)
def test_a_variable_whose_name_says_so_is_secret(name):
  assert read(f'{name}=x') == ({}, {name: 'x'})


@pytest.mark.parametrize(
  'name',
  [
    *('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'NCCL_IB_PKEY', 'NCCL_DEBUG'),
    *('TOKENIZERS_PARALLELISM', 'JAX_COMPILATION_CACHE_DIR', 'HTTPS_PROXY'),
    *('KEYBOARD', 'PATH', 'PWD', 'WANDB_MODE', 'TF_CPP_MIN_LOG_LEVEL'),
  ],
)
def test_others_are_not(name):
  assert read(f'{name}=x') == ({name: 'x'}, {})


def test_a_url_with_a_password_is_secret():
  assert read('HTTPS_PROXY=http://lab:hush@proxy:8080')[1]
  assert read('HTTPS_PROXY=http://proxy:8080')[0]


def test_the_users_values_win_over_the_targets():
  given = environment.Environment({'A': '1'}, {'B_TOKEN': 's'})
  args = argparse.Namespace(environment=given)
  own = {'A': 2, 'B_TOKEN': 't', 'C': 3, 'D': None}
  plain, secret = environment.variables(args, own)
  assert (plain, secret) == ({'A': '1', 'C': '3'}, {'B_TOKEN': 's'})


def test_a_target_that_keeps_no_secret_names_them_without_their_values():
  args = argparse.Namespace(environment=environment.Environment())
  environment.refuse_secrets(args, 'Why.')
  args.environment = environment.Environment({}, {'B_TOKEN': 'hush'})
  with pytest.raises(ValueError, match='B_TOKEN would not stay secret. Why.'):
    environment.refuse_secrets(args, 'Why.')
