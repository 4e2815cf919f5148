"""Devices that were asked for and are not there: one sentence, a remedy."""

import importlib.metadata
import logging
import os
import subprocess
import sys

import jax
import pytest

from cdm.cli import main
from cdm.config import loader, placement
from cdm.distributed import exit_codes, platforms, plugin_messages

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


SMOKE = os.path.join(ROOT, 'configs', 'smoke.py')


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
  monkeypatch.setattr(plugin_messages, '_said', [])


def given(monkeypatch, value, *installed):
  monkeypatch.setenv('JAX_PLATFORMS', value)
  monkeypatch.setattr(
    platforms, '_installed', lambda *names: bool({*names} & {*installed})
  )


@pytest.mark.parametrize(
  ('value', 'installed', 'error', 'parts'),
  [
    ('cuda', (), AssertionError(), ('NVIDIA GPUs is not installed', '[cuda]')),
    (
      'cuda',
      ('jax_cuda12_plugin',),
      RuntimeError("Unable to initialize backend 'cuda': no GPU (set JAX_X)"),
      ("kind 'cuda' can be used (no GPU).", 'nvidia-smi'),
    ),
    ('tpu', (), RuntimeError("'tpu'"), ('(libtpu) is not installed', '[tpu]')),
    (
      'tpu,cpu',
      ('libtpu',),
      RuntimeError("'tpu'"),
      ('no other process holds',),
    ),
    ('', (), RuntimeError('x'), ('JAX_PLATFORMS is not set', "'cpu'")),
    (
      'cdua',
      (),
      RuntimeError("Backend 'cdua' is not in the list"),
      ("JAX_PLATFORMS=cdua: JAX knows no devices of the kind 'cdua'", 'cuda?'),
    ),
  ],
)
def test_what_is_missing_is_named_with_its_remedy(
  monkeypatch, value, installed, error, parts
):
  given(monkeypatch, value, *installed)
  sentence = platforms.sentence(error)
  for part in parts:
    assert part in sentence
  assert '\n' not in sentence


def test_only_jax_looking_for_devices_concerns_them(monkeypatch):
  with pytest.raises(Exception) as caught:
    jax.devices('cdua')  # an argument, not the variable
  error = platforms.explain(caught.value)
  assert isinstance(error, platforms.NoDevice) == (
    platforms.concerns_devices(caught.value)
  )
  bug = AssertionError()
  assert platforms.explain(bug) is bug
  assert exit_codes.classify(platforms.NoDevice('x')) is exit_codes.BAD_INPUT


@pytest.mark.parametrize(
  ('value', 'words'),
  [
    ('cuda', ('sample', '--config=configs/smoke.py', '--workdir=w')),
    ('cuda,cpu', ('train', '--config=configs/smoke.py', '--workdir={}/run')),
    ('cdua', ('train', '--config=configs/smoke.py', '--workdir={}/run')),
  ],
)
def test_a_command_without_its_devices_ends_in_one_sentence(
  tmp_path, value, words
):
  if 'cuda' in value and platforms._has_cuda_package():
    pytest.skip('the package for GPUs is installed')
  done = subprocess.run(
    [sys.executable, '-m', 'cdm', *(word.format(tmp_path) for word in words)],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': value, 'NO_COLOR': '1'},
    capture_output=True,
    text=True,
    timeout=120,
    encoding='utf-8',
  )
  assert done.returncode == exit_codes.BAD_INPUT.code
  assert done.stderr.startswith(f'cdm: error: JAX_PLATFORMS={value}: ')
  assert len(done.stderr.splitlines()) == 1
  assert not list(tmp_path.iterdir())


# One that fails as that of NVIDIA does where its libraries are not found.
REASON = 'Unable to load cuDNN. Is it installed?'
PLUGIN = f"""
def initialize():
  raise RuntimeError({REASON!r} + chr(10) + 'Look for it.')
"""


@pytest.fixture(scope='module')
def failing_plugin(tmp_path_factory):
  """-> a folder for PYTHONPATH, with an installed plugin of JAX that fails."""
  folder = tmp_path_factory.mktemp('plugin')
  info = folder / 'stand_in-1.0.dist-info'
  info.mkdir()
  for path, text in (
    (folder / 'stand_in_plugin.py', PLUGIN),
    (
      info / 'METADATA',
      'Metadata-Version: 2.1\nName: stand-in\nVersion: 1.0\n',
    ),
    (info / 'entry_points.txt', '[jax_plugins]\nx = stand_in_plugin\n'),
  ):
    path.write_text(text, encoding='utf-8')
  (found,) = importlib.metadata.distributions(path=[str(folder)])
  assert found.entry_points.select(group='jax_plugins')
  return folder


@pytest.mark.parametrize(
  ('value', 'override', 'start'),
  [
    ('cuda', (), "JAX_PLATFORMS=cuda: no device of the kind 'cuda'"),
    ('cuda,cpu', (), "JAX_PLATFORMS=cuda,cpu: no device of the kind 'cuda'"),
    ('', ('--config.mesh.device=gpu',), "config.mesh.device is 'gpu': no dev"),
  ],
)
def test_a_run_whose_plugin_fails_does_not_train_on_cpus(
  tmp_path, failing_plugin, value, override, start
):
  words = ('train', f'--config={SMOKE}', f'--workdir={tmp_path}/run', *override)
  done = subprocess.run(
    [sys.executable, '-m', 'cdm', *words],
    cwd=tmp_path,
    env={
      **os.environ,
      'JAX_PLATFORMS': value,
      'NO_COLOR': '1',
      'PYTHONPATH': os.pathsep.join([ROOT, str(failing_plugin)]),
    },
    capture_output=True,
    text=True,
    timeout=180,
    encoding='utf-8',
  )
  assert done.returncode == exit_codes.BAD_INPUT.code, done.stderr
  *before, last = done.stderr.splitlines()
  assert last.startswith(f'cdm: error: {start}')
  assert f'(RuntimeError: {REASON} Look for it)' in last
  assert '/usr/local/nvidia/lib64' in last
  # What the sentence quotes is not printed besides, unless JAX had reason to.
  assert any('Traceback' in line for line in before) == (not value)
  assert not (tmp_path / 'run').exists()


def words_of(folder):
  """-> {command that computes on devices: arguments that it reads before}."""
  smoke = ('--config=configs/smoke.py', f'--workdir={folder}/run')
  out = f'--out={folder}/out'
  base = f'--samples=configs/smoke.py@{folder}'
  fid = (base, '--reference=configs/smoke.py:eval')
  return {
    'train': smoke,
    'sample': (*smoke, '--num=1', out),
    'upscale': (f'--workdir={folder}', '--held_out=1', out),
    'evaluate': (*fid, '--metrics=fid'),
    'cas': ('--config=configs/smoke_cas.py', f'--workdir={folder}/run'),
    'accuracy': ('--samples=configs/smoke.py:eval',),
    'sweep': (*fid, '--try=stages.sr.level=0,1', '--num=2', out),
    'robustness': (f'--samples={folder}@eval', out),
    'compare': ('--config=configs/smoke_sr.py', '--methods=bicubic', out),
  }


def test_no_command_goes_on_with_cpus_where_it_was_started_for_others(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(ROOT)
  for platform in ('cuda', 'tpu'):
    monkeypatch.setenv('JAX_PLATFORMS', f'{platform},cpu')
    for command, words in words_of(tmp_path).items():
      assert main.main([command, *words]) == exit_codes.BAD_INPUT.code
      said = capsys.readouterr().err
      assert f'JAX_PLATFORMS={platform},cpu: ' in said, (command, said)
  assert not list(tmp_path.iterdir())


def test_cpus_that_were_named_first_or_alone_are_what_was_asked_for(
  monkeypatch,
):
  for value in ('', 'cpu', 'cpu,cuda'):
    monkeypatch.setenv('JAX_PLATFORMS', value)
    platforms.require()


def test_a_machine_with_gpus_whose_plugin_fails_is_not_used_as_cpus(
  monkeypatch, tmp_path
):
  def devices():
    try:
      raise RuntimeError(REASON)
    except RuntimeError:
      logging.getLogger('jax._src.xla_bridge').exception('Exception when')
    return cpus

  cpus = jax.devices()
  monkeypatch.setattr(jax, 'devices', devices)
  monkeypatch.setenv('JAX_PLATFORMS', '')
  platforms.require()  # This machine has none.
  (tmp_path / 'nvidia0').touch()
  monkeypatch.setattr(platforms, '_NVIDIA_FILES', (f'{tmp_path}/nvidia0',))
  monkeypatch.setattr(platforms, 'DRIVER_LIBRARIES', str(tmp_path))
  with pytest.raises(platforms.NoDevice, match=REASON) as caught:
    platforms.require()
  assert f'Set LD_LIBRARY_PATH={tmp_path}, where' in str(caught.value)
  monkeypatch.setenv('LD_LIBRARY_PATH', f'/lib:{tmp_path}')
  with pytest.raises(platforms.NoDevice, match='nvidia-smi'):
    platforms.require()
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  platforms.require()


def test_what_jax_logs_is_shown_later_and_only_where_no_error_quotes_it():
  shown, jax_logger = [], logging.getLogger('jax')

  class Shown(logging.Handler):
    def emit(self, record):
      shown.append(record.getMessage())

  handler = Shown()
  jax_logger.addHandler(handler)
  try:
    with plugin_messages.held():
      logging.getLogger('jax._src.xla_bridge').error('one')
      assert not shown
    assert shown == ['one']
    with pytest.raises(ValueError, match='two'), plugin_messages.held():
      logging.getLogger('jax._src.xla_bridge').error('two')
      raise ValueError(plugin_messages.errors())
    assert shown == ['one']
  finally:
    jax_logger.removeHandler(handler)


def test_gpus_of_every_maker_at_once_are_explained(monkeypatch):
  given(monkeypatch, 'gpu', 'jax_cuda13_plugin')
  error = RuntimeError(
    "Unable to initialize backend 'rocm': Backend 'rocm' is not in the list of "
    "known backends: ['cpu', 'cuda']."
  )  # as JAX 0.10.2 and 0.12 raise it, where CUDA works
  assert 'JAX_PLATFORMS=cuda.' in platforms.sentence(error)


def test_the_config_names_the_devices_of_one_start(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', '')
  for kind in ('', 'cpu'):
    assert placement.mesh({'device': kind}).size == 8
  for kind, name in (('gpu', 'NVIDIA GPUs'), ('tpu', 'TPUs')):
    monkeypatch.setattr(platforms, '_installed', lambda *_: False)
    with pytest.raises(platforms.NoDevice, match=f'package for {name}'):
      placement.mesh({'device': kind})
    # Devices that are only described are not asked for.
    assert placement.mesh({'device': kind}, jax.devices()).size == 8
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  with pytest.raises(platforms.NoDevice, match='Set JAX_PLATFORMS=cuda, or'):
    placement.mesh({'device': 'gpu'})
  with pytest.raises(ValueError, match="device is 'cuda'; known are gpu, tpu"):
    placement.mesh({'device': 'cuda'})


def test_a_saved_config_may_be_used_on_other_devices():
  c = loader.load(SMOKE, [('mesh.device', 'tpu')])
  saved = loader.from_json(loader.to_json(c), 'config.json')
  assert 'device' not in saved.mesh
  assert c.mesh.device == 'tpu'
  assert not loader.changes(saved, c)
