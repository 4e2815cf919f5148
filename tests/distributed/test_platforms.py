"""Devices that were asked for and are not there: one sentence, a remedy."""

import os
import subprocess
import sys

import jax
import pytest

from cdm.distributed import exit_codes, platforms

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


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
    ('cdua', ('train', '--config=configs/smoke.py', '--workdir={}/run')),
  ],
)
def test_a_command_without_its_devices_ends_in_one_sentence(
  tmp_path, value, words
):
  if value == 'cuda' and platforms._installed('jax_cuda12_plugin'):
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
